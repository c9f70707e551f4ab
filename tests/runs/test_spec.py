"""A run's identity, its validation and its presets."""

import ast
import dataclasses
import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from ssvi import methods
from ssvi.cli import parser
from ssvi.core import criteria
from ssvi.errors import UserError
from ssvi.machine.disk import write_json
from ssvi.registry import ADDITIONS, CRITERIA, INHERITED, KINDS, MODELS, WITH_LAMBDA, using
from ssvi.runs import files
from ssvi.runs.completion import idle, parent_text
from ssvi.runs.options import DEFAULTS, FIELDS, NEEDS, PRESETS, non_defaults, options_of
from ssvi.runs.parents import parents_of, with_parents
from ssvi.runs.paths import run_path, to_flags, unique
from ssvi.runs.runfolder import check_spec, read_spec, spec_record
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.runs.values import LARGEST, REFUSED_IN_PATHS, SMALLEST, flag_text

PACKAGE = ROOT / "ssvi"
IVON = {"method": "vi", "posterior_optimizer": "ivon"}


def test_registries_and_names_agree() -> None:
    assert all(callable(registry[name]) for registry in (CRITERIA, ADDITIONS, MODELS) for name in registry)
    assert set(criteria.NAIVE) <= set(CRITERIA) > set(WITH_LAMBDA)
    assert all(issubclass(methods.method_class(name), methods.Method) for name in KINDS)
    for name, kind in KINDS.items():
        assert set(kind.options) <= set(FIELDS), name
        assert set(kind.factors) <= set(kind.options), name
        assert set(kind.parents) <= set(KINDS), name
    assert all(using(name) for name in FIELDS)


# Whatever else may be in a path, letters of all languages among it, and long ones.
paths = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=400).filter(
    lambda text: not REFUSED_IN_PATHS.search(text)
)


def option_values(name: str) -> st.SearchStrategy:
    field = FIELDS[name]
    meta, default = field.metadata, field.default
    if name == "dataset":
        return st.sampled_from(["digits", "cifar10", "cifar100"]) | paths.map(lambda t: f"folder:{t}")
    if name == "shrink":
        return st.sampled_from([1, 2, 4, 8])
    if name == "held_out_classes":
        return st.sets(st.integers(0, 99)).map(lambda classes: "+".join(map(str, sorted(classes))))
    if meta["choices"]:
        return st.sampled_from(list(meta["choices"]))
    if isinstance(default, bool):
        return st.booleans()
    low = meta["low"] if meta["low"] is not None else 0
    high = meta["high"] if meta["high"] is not None else LARGEST[type(default)]
    if isinstance(default, int):
        return st.integers(int(low), int(high))
    drawn = st.floats(low, high, exclude_min=meta["open_low"], allow_nan=False)
    return drawn.filter(lambda value: value == 0 or abs(value) >= SMALLEST)


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    method = draw(st.sampled_from(list(KINDS)))
    names = draw(st.lists(st.sampled_from(sorted(options_of(method) - {"method", "parent"})), unique=True, max_size=6))
    options = {n: draw(option_values(n)) for n in names}
    kind = KINDS[method]
    if method == "ensemble":
        # members have a share of the density, and seeds of their own beside the others'
        options |= {"density": draw(st.floats(0.01, 1.0)), "seed": draw(st.integers(0, 10**6))}
    if kind.needs_parent or (kind.parents and draw(st.booleans())):
        parent = draw(st.sampled_from(kind.parents))
        words = {n: draw(option_values(n)) for n in draw(st.sets(st.sampled_from(["batch_size", "lr", "momentum"])))}
        text = ",".join([parent, *(f"{k}={flag_text(v)}" for k, v in words.items())])
        options["parent"] = parent_text({"method": method, "parent": text}, "test")
    return RunSpec(method=method, **options)


@settings(max_examples=300)
@given(specs(), specs())
def test_run_path_is_injective_and_safe(a: RunSpec, b: RunSpec) -> None:
    assert (run_path(a) == run_path(b)) == (a == b)
    for part in run_path(a).split("/"):
        assert 0 < len(part) <= 255
        assert part not in (".", "..")
        assert set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-=+%~,")
    assert not run_path(b).startswith(run_path(a) + "/")


@given(specs())
def test_flags_give_the_spec_back(spec: RunSpec) -> None:
    given_ = parser().parse_args(["train", *to_flags(spec)])
    assert RunSpec(**{n: getattr(given_, n) for n in FIELDS if hasattr(given_, n)}) == spec


def spellings(value: object) -> st.SearchStrategy[object]:
    """Values that are equal to this one, as YAML, JSON, NumPy and arithmetic write them."""
    made = [value]
    if isinstance(value, bool):
        made += [np.bool_(value)]
    elif isinstance(value, int | float):
        exact = isinstance(value, int) and value < 2**63
        made += [np.int64(value)] if exact else [np.float64(value), *([int(value)] if value.is_integer() else [])]
        made += [-value] if value == 0 else []
    else:
        made += [np.str_(value)]
    return st.sampled_from(made)


@settings(max_examples=300)
@given(st.data(), specs(), st.sampled_from(["momentum", "weight_decay", "mu_init_sd", "kl_scale", "validation"]))
def test_equal_specs_are_one_run(data: st.DataObject, spec: RunSpec, zero: str) -> None:
    """However their values are spelt: one path, one command line, one spec.json."""
    spec = dataclasses.replace(spec, **({} if spec.parent else {zero: 0.0}))
    other = RunSpec(**{name: data.draw(spellings(getattr(spec, name))) for name in FIELDS})
    assert other == spec
    assert run_path(other) == run_path(spec)
    assert to_flags(other) == to_flags(spec)
    assert json.dumps(spec_record(other, {})) == json.dumps(spec_record(spec, {}))


@pytest.mark.parametrize(("text", "same"), [("vi,momentum=-0.0", "vi,momentum=0"), ("vi,lr=1", "vi,lr=1.0")])
def test_equal_parents_are_one_run(text: str, same: str) -> None:
    one, other = (make_spec({"method": "pruned", "parent": parent}) for parent in (text, same))
    assert one == other
    assert run_path(one) == run_path(other)


@given(specs())
def test_parents_come_first_and_share_what_is_inherited(spec: RunSpec) -> None:
    found = list(with_parents({run_path(spec): spec}).values())
    assert found == [*parents_of(spec), spec]
    for parent in found[:-1]:
        shared = [name for name in INHERITED if not (name == "seed" and spec.method == "ensemble")]
        assert all(getattr(parent, name) == getattr(spec, name) for name in shared)
    if spec.method == "ensemble":
        assert len({p.seed for p in found[:-1]}) == spec.members
        assert sum(p.density for p in found[:-1]) == pytest.approx(spec.density)


def test_a_parents_text_has_one_form() -> None:
    """However it is typed, the same parent makes the same run."""
    texts = ("vi,epochs=12,lr=0.1", "vi,lr=0.1,epochs=12", "vi,lr=1e-1,epochs=12,batch_size=128")
    found = {run_path(make_spec({"method": "pruned", "parent": t})) for t in texts}
    assert found == {"digits/resnet18/pruned/density=0.1/criterion=snr_abs/parent=vi,epochs=12,lr=0.1/seed=0"}


def test_path_of_a_known_run() -> None:
    spec = make_spec({"dataset": "digits", "model": "resnet8", "epochs": 15, "seed": 2})
    assert run_path(spec) == "digits/resnet8/ssvi/density=0.1/criterion=snr_abs/sigma_init=0.0006/epochs=15/seed=2"


def test_unique_keeps_each_run_once() -> None:
    spec = make_spec({"seed": 1})
    assert list(unique([spec, spec]).values()) == [spec]


def test_preset_selects_the_published_code_and_yields_to_what_is_given() -> None:
    official = make_spec({"preset": "official"})
    # signed means nothing to mc1, nor normalisation to digits
    expected = {**PRESETS["official"], "addition_average": "absolute", "normalisation": "pixels"}
    assert {k: getattr(official, k) for k in PRESETS["official"]} == expected
    averaged = make_spec({"preset": "official", "addition": "mcK", "addition_samples": 2})
    assert averaged.addition_average == "signed"
    assert make_spec({"preset": "official", "validation": 0.1}).validation == 0.1
    assert make_spec({"preset": "official", "dataset": "cifar10"}).normalisation == "images"
    assert make_spec({"preset": "official", "method": "dense"}).grow_sigma == RunSpec.grow_sigma
    by_hand = {k: v for k, v in PRESETS["official"].items() if k not in ("addition_average", "normalisation")}
    assert run_path(official) == run_path(make_spec(by_hand))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epoch": 3}, ["'epoch'", "did you mean 'epochs'", "here"]),
        ({"lr": "1e-3"}, ["lr is '1e-3'", "must be a number", "write 0.001"]),
        ({"epochs": 2.5}, ["epochs is 2.5", "whole number"]),
        ({"epochs": True}, ["epochs is True", "whole number"]),
        ({"augment": 1}, ["augment is 1", "true or false"]),
        ({"density": 0}, ["density is 0", "> 0 and <= 1"]),
        ({"density": 1.5}, ["density is 1.5", "> 0 and <= 1"]),
        ({"density": float("nan")}, ["density is nan"]),
        ({"lr": float("inf")}, ["lr is inf"]),
        ({"dataset": "cifar"}, ["dataset 'cifar'", "did you mean 'cifar10'", "folder:PATH"]),
        ({"dataset": "folder:"}, ["needs a path"]),
        ({"method": "rigel"}, ["method 'rigel'", "did you mean 'rigl'"]),
        ({"criterion": "snr_ab"}, ["criterion 'snr_ab'", "did you mean 'snr_abs'"]),
        ({"method": "dense", "density": 0.1}, ["density is 0.1", "'dense' does not use density", "rigl, static"]),
        ({"method": "pruned"}, ["'pruned' needs a parent", "parent: vi"]),
        ({"method": "vd", "parent": "rigl"}, ["parent's method 'rigl'", "dense, vi"]),
        ({"method": "vd", "parent": "dense,seed=3"}, ["parent has seed", "leave it out"]),
        ({"method": "vd", "parent": "dense,epochs"}, ["parent is 'dense,epochs'", "as in vi,epochs=12"]),
        ({"method": "vd", "parent": "dense,epoch=3"}, ["here: parent", "'epoch'", "did you mean 'epochs'"]),
        ({"method": "vd", "parent": "dense,epochs=x"}, ["epochs is 'x'", "whole number"]),
        ({"method": "vd", "parent": "dense,kl_scale=1"}, ["'dense' does not use kl_scale"]),
        ({"method": "vd", "parent": 3}, ["parent is 3", "a word"]),
        ({"method": "ssvi", "parent": "vi"}, ["'ssvi' does not use parent", "ensemble, vd"]),
        ({"method": "ensemble", "parent": "rigl,density=0.1"}, ["parent has density", "leave it out"]),
        ({"method": "sbp", "gate_noise": "batch"}, ["gate_noise is 'batch'", "needs a parent"]),
        ({"method": "vi", "epochs": 0}, ["epochs is 0", "only method pruned"]),
        ({"method": "vi", "criterion": "snr"}, ["'vi' does not use criterion"]),
        ({"exp_lambda": 2.0}, ["no effect unless criterion is", "e_exp or snr_exp"]),
        ({"addition_samples": 4}, ["no effect unless addition is mcK"]),
        ({"grow_sigma_value": 0.1}, ["no effect unless grow_sigma is constant"]),
        ({"addition_average": "signed"}, ["no effect unless addition is mcK"]),
        ({"seed": 10**400}, ["seed is too large"]),
        ({"lr": 10**400}, ["lr is too large"]),
        ({"image_size": 64}, ["image_size is 64", "no effect unless dataset is folder:PATH"]),
        ({"mean_init": "fan_in", "mu_init_sd": 0.1}, ["mu_init_sd is 0.1", "unless mean_init is published."]),
        ({"ivon_lr": 0.2}, ["ivon_lr is 0.2", "no effect unless posterior_optimizer is ivon."]),
        ({**IVON, "sigma_lr": 1.0}, ["sigma_lr is 1.0", "no effect unless posterior_optimizer is sgd."]),
        ({**IVON, "sigma_optimizer": "adam"}, ["sigma_optimizer is 'adam'", "unless posterior_optimizer is sgd."]),
        (
            {**IVON, "curvature_memory": 0.5, "curvature_beta": 0.9},
            ["curvature_memory is 0.5", "no effect unless curvature_beta is 0."],
        ),
        ({"curvature_memory": 0.5, "curvature_beta": 0.9}, ["no effect unless posterior_optimizer is ivon."]),
        ({**IVON, "curvature_init": 2.0, "sigma_init": 0.001}, ["sigma_init is 0.001", "curvature_init is 0."]),
        ({**IVON, "curvature_init": 2.0, "sigma_init_sd": 0.0}, ["sigma_init_sd is 0.0", "curvature_init is 0."]),
        ({**IVON, "sigma_init": 0.01}, ["sigma_init is 0.01", "<= prior_sigma, 0.005"]),
        ({**IVON, "kl_scale": 0.0}, ["kl_scale is 0", "> 0 with posterior_optimizer ivon"]),
        (
            {**IVON, "method": "ssvi", "grow_sigma": "constant", "grow_sigma_value": 0.01},
            ["grow_sigma_value is 0.01", "<= prior_sigma, 0.005"],
        ),
        ({"method": "rigl", "mean_init": "fan_in"}, ["mean_init is 'fan_in'", "the same as 'published'"]),
        ({"method": "vi", "mean_init": "active_fan_in"}, ["mean_init is 'active_fan_in'", "the same as 'fan_in'"]),
        ({"method": "ssvi", "mean_init": "fan_in", "mu_init_sd": 0.1}, ["mu_init_sd is 0.1", "mean_init is published"]),
        ({"preset": "oficial"}, ["preset 'oficial'", "did you mean 'official'"]),
        (
            {"addition": "mcK", "addition_samples": 9, "addition_average": "signed", "delta_t": 4},
            ["addition_samples is 9", "at most delta_t = 4"],
        ),
    ],
)
def test_bad_options_are_named(options: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_spec(options, where="here")
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "without_effect"),
    [
        ({}, {"ivon_lr", "curvature_memory", "curvature_beta", "curvature_init", "step_clip"}),
        (IVON, {"sigma_lr", "sigma_optimizer"}),
        ({**IVON, "curvature_beta": 0.9}, {"sigma_lr", "sigma_optimizer", "curvature_memory"}),
        ({**IVON, "curvature_init": 2.0}, {"sigma_lr", "sigma_optimizer", "sigma_init", "sigma_init_sd"}),
        # what has no effect itself takes none away
        ({"curvature_init": 2.0}, {"ivon_lr", "curvature_memory", "curvature_beta", "curvature_init", "step_clip"}),
    ],
)
def test_what_has_no_effect_is_told_by_all_that_an_option_needs(options: dict, without_effect: set[str]) -> None:
    learned = {"sigma_lr", "sigma_optimizer", "ivon_lr", "curvature_memory", "curvature_beta", "curvature_init"}
    learned |= {"step_clip", "sigma_init", "sigma_init_sd", "mu_init_sd"}
    assert idle(options) & learned == without_effect
    assert idle({"mean_init": "fan_in"} | options) & learned == {*without_effect, "mu_init_sd"}


def test_what_options_need_are_options_and_no_option_needs_itself() -> None:
    def before(name: str) -> set[str]:
        others = {need.option for need in NEEDS.get(name, ())}
        return others.union(*map(before, others))  # ends unless there is a circle

    for name, needs in NEEDS.items():
        assert name not in before(name) <= set(DEFAULTS)
        assert all(len(need.values) for need in needs)


def test_spec_file_round_trip_and_foreign_results(tmp_path) -> None:
    spec = make_spec({"method": "rigl", "lr": 0.1})
    write_json(tmp_path / files.SPEC, spec_record(spec, {}))
    assert read_spec(tmp_path) == spec
    check_spec(tmp_path, spec)
    with pytest.raises(UserError, match=r"other options or defaults: epochs was 200 and is now 3"):
        check_spec(tmp_path, dataclasses.replace(spec, epochs=3))


def test_an_option_newer_than_the_results_counts_as_its_default(tmp_path) -> None:
    spec = make_spec({"method": "ssvi"})
    record = spec_record(spec, {})
    del record["spec"]["addition_gradient"]
    write_json(tmp_path / files.SPEC, record)
    check_spec(tmp_path, spec)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"spec": 3}', '{"spec": {"lr": "fast"}}', '{"spec": {"x": 1}}'])
def test_a_damaged_spec_file_is_one_line(tmp_path, content: str) -> None:
    (tmp_path / files.SPEC).write_text(content)
    with pytest.raises(UserError, match=r"spec\.json"):
        read_spec(tmp_path)


def test_non_defaults_rebuild_the_spec() -> None:
    spec = make_spec({"method": "vi", "sigma_init": 0.01, "epochs": 4})
    assert RunSpec(**non_defaults(spec)) == spec


@pytest.mark.parametrize(
    ("like", "options"),
    [
        ("ensemble", {"parent": "rigl,epochs=3", "density": 0.3, "members": 3, "seed": 2}),
        ("pruned", {"parent": "vi,epochs=3", "epochs": 0}),
        ("sbp", {"parent": "dense", "gate_noise": "batch"}),
        ("sbp", {"gate_noise": "batch"}),
        ("vi", {"epochs": 0}),
        ("ensemble", {"parent": "rigl,density=0.1"}),
        ("ensemble", {"parent": "rigl", "seed": 2**62}),
        ("ensemble", {"parent": "rigl", "density": 1e-38, "members": 900}),
    ],
    ids=str,
)
def test_a_new_method_is_treated_by_what_its_kind_says(monkeypatch, like: str, options: dict) -> None:
    """Under another name all is as for the method whose `Kind` it has: parents, paths, and what is refused."""

    def found(method: str) -> list[str]:
        try:
            spec = make_spec(options | {"method": method})
        except UserError as error:
            # of the two that may be untrained here, the message names both
            return [str(error).replace("pruned or mine", "pruned").replace(f"'{method}'", "METHOD")]
        return [run_path(spec).replace(f"/{method}/", "/METHOD/"), *map(run_path, parents_of(spec))]

    expected = found(like)
    monkeypatch.setitem(KINDS, "mine", KINDS[like])
    assert found("mine") == expected


def test_what_needs_a_parent_of_a_method_that_has_none_is_one_line(monkeypatch) -> None:
    monkeypatch.setitem(KINDS, "mine", dataclasses.replace(KINDS["sbp"], parents=()))
    with pytest.raises(UserError, match=r"it needs a parent, which method 'mine' never has\.$"):
        make_spec({"method": "mine", "gate_noise": "batch"})


def test_what_all_methods_share_asks_for_none_by_its_name() -> None:
    """Outside their own code, and the tables and figures, which are about methods."""
    places = [p for p in PACKAGE.rglob("*.py") if not {"methods", "analysis"} & {*p.relative_to(PACKAGE).parts}]
    assert len(places) > 50
    for path in places:
        compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
        words = [leaf.value for node in compared for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
        assert not [word for word in words if isinstance(word, str) and word in KINDS], path


@pytest.mark.parametrize(
    ("option", "text", "number"),
    [
        ("lr", "1.0e3", 1000.0),
        ("lr", "1.5e2", 150.0),
        ("lr", "1E-7", 1e-7),
        ("lr", ".5e-1", 0.05),
        ("lr", "1.e30", 1e30),
        ("epochs", "2e2", 200),
        ("epochs", "1.5e1", 15),
        ("seed", "9007199254740993e0", 9007199254740993),
        ("seed", "0e999999999", 0),
        ("epochs", "15e-1", None),
        ("epochs", "1e30", None),
        ("lr", "1e400", None),
        ("lr", "1e-400", None),
        ("lr", "-1e2", None),
        ("density", "2e0", None),
        ("augment", "1e0", None),
        ("lr", "1e999999999", None),
    ],
)
def test_what_is_said_of_a_number_with_an_exponent_is_what_yaml_and_the_option_take(option, text, number) -> None:
    with pytest.raises(UserError) as caught:
        make_spec({option: text, "method": "rigl"})
    _, told, hint = str(caught.value).partition(f" YAML reads {text} as text: write ")
    read = yaml.safe_load(hint.removesuffix(".")) if told else None
    assert read == number
    assert type(read) is type(number)
    if told:
        make_spec({option: read, "method": "rigl"})
