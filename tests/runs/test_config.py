"""config.yaml: what it means, and one clear line for everything that can be wrong with it."""

import contextlib
import copy
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from ssvi.analysis.collect import RUN_COLUMNS
from ssvi.analysis.figures import FIGURES
from ssvi.analysis.tables import TABLES
from ssvi.errors import UserError
from ssvi.runs.config import (
    OUTPUT_KINDS,
    check_config,
    check_output_names,
    data_sets,
    load_config,
    output_runs,
    resolve,
    study_experiments,
    study_runs,
)
from ssvi.runs.configfile import read_config
from ssvi.runs.loader import Loader
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

GOOD = {
    "study": "tiny",
    "results": "results",
    "reports": "reports",
    "data_root": "data",
    "evaluation": {"samples": 2, "bins": 15},
    "studies": {
        "tiny": {
            "train": {"dataset": "digits", "model": "mlp", "epochs": 1, "delta_t": 5},
            "experiments": {
                "vi": {"method": "vi", "seed": [0, 1]},
                "ssvi": [{"method": "ssvi", "density": [0.1, 0.2], "seed": [0, 1]}, {"method": "rigl"}],
            },
            "tables": {"table1": ["vi", "ssvi"]},
            "figures": {"curves": ["vi"]},
        }
    },
}


def changed(path: str, value: object) -> dict:
    """GOOD with one key set (or, for `...`, deleted)."""
    config = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    place = config
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return config


@pytest.fixture(scope="module")
def shipped() -> dict:
    return load_config(ROOT / "config.yaml")


def test_the_shipped_config_is_good_and_every_study_plans(shipped: dict) -> None:
    config = shipped
    check_output_names(config, "tables", TABLES, RUN_COLUMNS, "config.yaml")
    check_output_names(config, "figures", FIGURES, RUN_COLUMNS, "config.yaml")
    runs = {study: set(study_runs(config, study)) for study in config["studies"]}
    assert runs["paper"] < runs["cifar10"] | runs["cifar100"]
    cifar10 = study_experiments(config, "cifar10")
    assert runs["cifar10"] - runs["paper"] <= set(cifar10["sparser"])
    assert 400 < len(runs["digits"]) < 450
    assert set(cifar10["compressed"]) <= set(cifar10["ssvi"])
    calibrated = set(study_experiments(config, "paper")["calibrated"])
    for run, spec in study_runs(config, "paper").items():
        assert (spec.validation == 0) != (run in calibrated)
        assert spec.epochs == 200 or spec.method in ("sbp", "aeb", "pruned")


def test_parents_are_trained_once_and_have_the_shared_options(shipped: dict) -> None:
    """Ensembles share their members with one another and with the runs beside them."""
    config = shipped
    runs = study_runs(config, "digits")
    (one,) = (run for run, spec in runs.items() if spec.method == "vd" and spec.kl_weight == 0.1 and spec.seed == 0)
    (parent,) = parents_of(runs[one])
    assert run_path(parent) == "digits/resnet8/dense/lr=0.1/epochs=12+batch_size=64/seed=0"
    assert run_path(parent) in study_experiments(config, "digits")["dense"]
    members = {run_path(p) for spec in runs.values() if spec.method == "ensemble" for p in parents_of(spec)}
    assert len(members) == 2 * 15
    assert members < set(runs)
    assert list(runs).index(run_path(parent)) < list(runs).index(one)


def test_shared_options_and_presets_reach_parents_but_not_what_they_inherit() -> None:
    config = changed("studies/tiny/experiments/vi", {"method": "pruned", "parent": "vi", "epochs": 0})
    config["studies"]["tiny"]["train"] |= {"preset": "official", "sigma_init": 0.001}
    (spec,) = study_experiments(config, "tiny")["vi"].values()
    assert spec.parent == "vi,epochs=1,precision=fp32,record_best_test=true,sigma_init=0.001"
    assert parents_of(spec)[0].validation == spec.validation == 0.0
    alone = changed(
        "studies/tiny/experiments", {"e": {"method": "ensemble", "parent": "rigl", "density": 0.3, "members": 3}}
    )
    alone["studies"]["tiny"] |= {"tables": {}, "figures": {}}
    check_config(alone, "config.yaml")
    members = parents_of(next(iter(study_experiments(alone, "tiny")["e"].values())))
    assert [(m.density, m.delta_t, m.seed) for m in members] == [(0.1, 5, 0), (0.1, 5, 1), (0.1, 5, 2)]


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        ("rigl", ["experiments.vi", "parent's method 'rigl'", "dense, vi"]),
        ("dense,seed=3", ["parent has seed"]),
        ("dense,epoch=3", ["'epoch'", "did you mean 'epochs'"]),
        (3, ["parent is 3"]),
        ("vi,criterion=snr", ["'vi' does not use criterion"]),
    ],
)
def test_bad_parents_are_named_with_their_experiment(parent, words) -> None:
    config = changed("studies/tiny/experiments/vi", {"method": "vd", "parent": parent})
    with pytest.raises(UserError) as caught:
        check_config(config, "config.yaml")
    assert all(word in str(caught.value) for word in ["experiments.vi", *words]), caught.value


def test_every_output_of_the_shipped_studies_has_runs_and_the_quick_ones_are_few(shipped: dict) -> None:
    config = shipped
    content = resolve(config, "digits")
    runs = {name: output_runs(config, "digits", kind, name) for kind in OUTPUT_KINDS for name in content[kind]}
    learning = resolve(config, "learning")
    of_learning = {
        name: output_runs(config, "learning", kind, name) for kind in OUTPUT_KINDS for name in learning[kind]
    }
    assert {*runs, *of_learning} == {*TABLES, *FIGURES}
    assert all({**runs, **of_learning}.values())
    assert len(set().union(*(runs[name] for name in content["quick"]))) < 100


LIKE = {
    "base": GOOD["studies"]["tiny"],
    "other": {
        "like": "base",
        "train": {"epochs": 2, "delta_t": None},
        "experiments": {"vi": {"method": "vi", "seed": 5}, "more": {"method": "dense"}, "ssvi": None},
        "tables": {"table1": ["vi"]},
    },
    "third": {"like": "other", "train": {"dataset": ["cifar10", "cifar100"]}},
}


def test_a_study_like_another_takes_over_what_it_does_not_say() -> None:
    config = {**GOOD, "study": "third", "studies": LIKE}
    check_everything(config)
    other = study_runs(config, "other")
    assert [(s.method, s.seed, s.epochs) for s in other.values()] == [("vi", 5, 2), ("dense", 0, 2)]
    assert {s.dataset for s in study_runs(config, "third").values()} == {"cifar10", "cifar100"}
    assert len(study_runs(config, "third")) == 2 * len(other)
    assert resolve(config, "third")["figures"] == LIKE["base"]["figures"]
    assert len(study_runs(config, "base")) == 7


def test_networks_are_logged_where_a_study_or_one_that_it_is_like_says_so() -> None:
    logged = {**LIKE, "base": {**LIKE["base"], "log_models": True}}
    for studies, expected in ((LIKE, False), (logged, True)):
        assert all(resolve({**GOOD, "studies": studies}, name)["log_models"] is expected for name in studies)
    logged["third"] = {**LIKE["third"], "log_models": False}
    assert not resolve({**GOOD, "studies": logged}, "third")["log_models"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base": {"like": "third"}}, "base -> third -> other -> base is a circle"),
        ({"third": {"like": "othr"}}, "study 'othr' is unknown, did you mean 'other'?"),
        ({"third": {"train": {}}}, "third: has no experiments"),
        ({"third": {"like": "other", "quick": ["table2"]}}, "table or figure 'table2' is unknown"),
        ({"third": {"like": "other", "figures": {"all": ["vi"]}}}, "'all' is a target of the workflow"),
        ({"third": {"like": "other", "figures": {"mine": {"of": ["vi"], "x": "lr"}}}}, "x: column, y: column"),
        (
            {"third": {"like": "other", "figures": {"mine": {"of": ["vi"], "x": "lr", "y": "acuracy"}}}},
            "third.figures.mine.y: column 'acuracy' is unknown, did you mean 'accuracy'?",
        ),
        (
            {"third": {"like": "other", "figures": {"curves": {"of": ["vi"], "x": "lr", "y": "nll"}}}},
            "'curves' is a figure of its own kind",
        ),
    ],
)
def test_bad_studies_by_likeness(changes: dict, line: str) -> None:
    config = {**GOOD, "study": "other", "studies": {**LIKE, **changes}}
    with pytest.raises(UserError) as caught:
        check_everything(config)
    assert line in str(caught.value)


def test_lists_are_axes_and_shared_options_reach_the_methods_that_use_them() -> None:
    runs = study_experiments(GOOD, "tiny")["ssvi"]
    assert len(runs) == 5
    assert {s.delta_t for s in runs.values()} == {5}
    assert {(s.density, s.seed) for s in runs.values() if s.method == "ssvi"} == {
        (0.1, 0),
        (0.1, 1),
        (0.2, 0),
        (0.2, 1),
    }
    assert all(s.delta_t == RunSpec.delta_t for s in study_experiments(GOOD, "tiny")["vi"].values())
    assert list(data_sets(runs)) == ["digits"]


def test_shared_options_without_effect_on_a_run_leave_it_alone() -> None:
    config = changed("studies/tiny/train/exp_lambda", 2.0)
    config["studies"]["tiny"]["experiments"]["ssvi"] = {"method": "ssvi", "criterion": ["snr_abs", "e_exp"]}
    found = {s.criterion: s.exp_lambda for s in study_experiments(config, "tiny")["ssvi"].values()}
    assert found == {"snr_abs": 1.0, "e_exp": 2.0}


# Shared options with two values each, and grids that use them, set their own, or whose parents do.
SHARED = {
    "dataset": ("digits", "cifar100"),
    "lr": (0.2, 0.3),
    "epochs": (2, 3),
    "delta_t": (7, 8),
    "density": (0.4, 0.5),
    "criterion": ("abs_mu", "snr"),
    "exp_lambda": (2.0, 3.0),
    "addition_samples": (2, 3),
    "addition_average": ("absolute", "signed"),
    "grow_sigma_value": (0.1, 0.2),
    "normalisation": ("pixels", "images"),
    "validation": (0.1, 0.2),
    "members": (2, 3),
}
GRIDS = [
    {"method": "vi", "lr": [0.6, 0.7]},
    {"method": "vi", "preset": "official"},
    {"method": "dense", "epochs": 9},
    {"method": "dense", "dataset": "cifar10"},
    {"method": "dense", "dataset": "cifar10", "preset": "official"},
    {"method": "ssvi", "density": 0.6, "criterion": "e_exp"},
    {"method": "ssvi", "density": 0.6, "criterion": ["e_exp", "snr_exp"], "exp_lambda": 4.0},
    {"method": "ssvi", "density": 0.6, "addition": ["mc1", "mcK"], "delta_t": 50},
    {"method": "ssvi", "grow_sigma": "constant", "preset": "official", "lr": 0.6},
    {"method": "pruned", "parent": "vi,lr=0.6", "lr": 0.6, "epochs": 0, "criterion": "e_abs"},
    {"method": "ensemble", "parent": "rigl,lr=0.6,delta_t=9", "density": 0.6},
]


@settings(max_examples=50)
@given(st.sets(st.sampled_from(sorted(SHARED)), min_size=1, max_size=3), st.sets(st.integers(0, 10), min_size=1))
def test_a_shared_option_has_an_effect_if_another_value_makes_other_runs(names: set[str], grids: set[int]) -> None:
    def study(**values: object) -> dict:
        train = {name: SHARED[name][0] for name in sorted(names)} | values
        experiments = {f"e{i}": GRIDS[i] for i in sorted(grids)}
        return {**GOOD, "studies": {"tiny": {"train": train, "experiments": experiments}}}

    runs = set(study_runs(study(), "tiny"))
    dead = {name for name in names if set(study_runs(study(**{name: SHARED[name][1]}), "tiny")) == runs}
    with contextlib.nullcontext() if not dead else pytest.raises(UserError) as caught:
        check_config(study(), "my.yaml")
    if dead:
        refused = str(caught.value).split()[2]
        assert str(caught.value).startswith(f"my.yaml: studies.tiny.train: {refused} is {SHARED[refused][0]!r}, but ")
        assert refused in dead


@pytest.mark.parametrize(
    ("train", "grids", "line"),
    [
        ({"exp_lambda": 3}, [{}], "another criterion than e_exp or snr_exp."),
        ({"exp_lambda": 3}, [{"exp_lambda": 4, "criterion": "e_exp"}, {"criterion": "snr"}],
         "another criterion than e_exp or snr_exp or its own exp_lambda."),
        ({"lr": [0.1, 0.2]}, [{"lr": 0.3}, {"method": "dense", "lr": 0.3}], "its own lr."),
        ({"precision": "bf16"}, [{"preset": "official"}], "the precision of its preset."),
        ({"precision": "bf16"}, [{"preset": "official", "precision": "auto"}], "its own precision."),
        ({"preset": "official"}, [{"preset": "official"}], "its own preset."),
        ({"method": "vi"}, [{"method": "dense"}], "its own method."),
        ({"parent": "vi"}, [{"method": "pruned", "parent": "vi,lr=0.1"}], "its own parent."),
        ({"flip": "none"}, [{"augment": False}], "another augment than true."),
        ({"image_size": 48}, [{"dataset": ["digits", "cifar10"]}], "another dataset than folder:PATH."),
        ({"curvature_memory": 0.5}, [{}], "another posterior_optimizer than ivon."),
        ({"curvature_memory": 0.5}, [{"posterior_optimizer": "ivon", "curvature_beta": 0.9}],
         "another curvature_beta than 0."),
        ({"sigma_init": 0.001}, [{"posterior_optimizer": "ivon", "curvature_init": 2.0}],
         "another curvature_init than 0."),
    ],
)  # fmt: skip
def test_a_shared_option_without_effect_says_why(train: dict, grids: list, line: str) -> None:
    study = {"train": {**train, "epochs": 2}, "experiments": {"e": [{"method": "ssvi", **grid} for grid in grids]}}
    (name,) = train
    with pytest.raises(UserError) as caught:
        check_config({**GOOD, "studies": {"tiny": study}}, "my.yaml")
    start = (
        f"my.yaml: studies.tiny.train: {name} is {train[name]!r}, but has no effect: every run that could use it has"
    )
    assert str(caught.value) == f"{start} {line}"


@pytest.mark.parametrize(
    ("train", "count"),
    [
        ({"dataset": "digits", "flip": "auto", "augment": [False, True]}, 2),
        ({"dataset": ["cifar10", "folder:pets"], "flip": "none", "augment": [False, True]}, 4),
        ({"dataset": ["cifar10", "folder:pets"], "image_size": 48}, 2),
        ({"dataset": "folder:pets", "image_size": [32, 48]}, 2),
    ],
)
def test_a_shared_option_reaches_the_runs_where_it_has_an_effect(train: dict, count: int) -> None:
    config = {**GOOD, "studies": {"tiny": {"train": train, "experiments": {"e": {"method": "ssvi"}}}}}
    check_config(config, "my.yaml")
    found = study_runs(config, "tiny").values()
    assert len(found) == count
    for spec in found:
        assert spec.flip == (train.get("flip", "auto") if spec.augment else "auto")
        assert spec.image_size == 32 or spec.dataset == "folder:pets"
    assert {spec.image_size for spec in found if spec.dataset == "folder:pets"} <= {32, 48}
    if "image_size" in train:
        assert 48 in {spec.image_size for spec in found}


def test_a_shared_option_reaches_runs_on_which_what_takes_its_effect_away_has_none() -> None:
    train = {"sigma_init": 0.001, "curvature_init": 2.0}
    grid = {"method": "ssvi", "posterior_optimizer": ["sgd", "ivon"]}
    config = {**GOOD, "studies": {"tiny": {"train": train, "experiments": {"e": grid}}}}
    check_config(config, "my.yaml")
    found = {s.posterior_optimizer: (s.sigma_init, s.curvature_init) for s in study_runs(config, "tiny").values()}
    assert found == {"sgd": (0.001, 0.0), "ivon": (0.0006, 2.0)}


def test_what_the_study_of_a_like_one_says_may_lose_its_effect_where_experiments_are_left_out() -> None:
    base = {
        "train": {"exp_lambda": 3.0, "members": 2},
        "experiments": {
            "e": {"method": "ssvi", "criterion": "e_exp"},
            "f": {"method": "ensemble", "parent": "static", "density": 0.2},
        },
    }
    other = {"like": "tiny", "train": {"epochs": 2}, "experiments": {"e": {"method": "ssvi"}, "f": None}}
    check_config({**GOOD, "studies": {"tiny": base, "other": other}}, "my.yaml")
    other["train"]["exp_lambda"] = 2.0
    with pytest.raises(UserError, match=r"studies\.other\.train: exp_lambda is 2.0, but has no effect"):
        check_config({**GOOD, "studies": {"tiny": base, "other": other}}, "my.yaml")


def test_numbers_that_anybody_reads_as_yaml_does_are_read(tmp_path) -> None:
    texts = {"0x10": 16, "0b11": 3, "1_000": 1000, "0": 0, "-0": 0, "0.5": 0.5, "00.5": 0.5, "1.5e+3": 1500.0, "90": 90}
    texts |= {"'010'": "010", "'1:30'": "1:30", "1:30 h": "1:30 h"}
    (tmp_path / "c.yaml").write_text(f"studies: [{', '.join(texts)}]")
    assert read_config(tmp_path / "c.yaml") == {"studies": list(texts.values())}


@given(st.integers(0, 10**6), st.sampled_from(["", "-", "+"]), st.sampled_from(["0", "00", "0_"]))
def test_a_number_that_python_and_yaml_read_differently_is_refused_or_read_as_it_looks(number, sign, zeros) -> None:
    """YAML reads zeros in front as octal; what it takes for text is no number, and refused where types are checked."""
    text = f"{sign}{zeros}{number}"
    read = yaml.safe_load(text)
    if isinstance(read, str):
        assert yaml.load(text, Loader=Loader) == text
    else:
        line = f"{text} would be read as {read}: write {'-' * (sign == '-')}{number}, or '{text}' in quotes"
        with pytest.raises(yaml.constructor.ConstructorError, match=re.escape(line)):
            yaml.load(text, Loader=Loader)


def test_presets_reach_a_grid_and_yield_to_what_stands_beside_them() -> None:
    config = changed("studies/tiny/experiments/vi", {"method": ["vi", "ssvi"], "preset": "official", "validation": 0.2})
    for spec in study_experiments(config, "tiny")["vi"].values():
        assert spec.record_best_test
        assert spec.validation == 0.2
        assert spec.grow_sigma == ("mean_rho" if spec.method == "ssvi" else "mean")
    config = changed("studies/tiny/train/preset", "official")
    assert {s.update_step for s in study_experiments(config, "tiny")["ssvi"].values()} == {"skip"}


BAD = [
    ("stduy", "x", ["key 'stduy'", "did you mean 'study'"]),
    ("study", ..., ["'study' is missing"]),
    ("study", "digit", ["study 'digit' is unknown", "tiny"]),
    ("evaluation/samples", 0, ["evaluation.samples: 0", "whole number >= 1"]),
    ("evaluation/bins", "15", ["evaluation.bins", "whole number"]),
    ("evaluation/sample", 3, ["'sample'", "did you mean 'samples'"]),
    ("download", "yes", ["download", "true or false"]),
    ("licence", 3, ["licence", "a word"]),
    ("follow_links", "yes", ["follow_links", "true or false"]),
    ("checkpoint_seconds", -1, ["checkpoint_seconds: -1", "a number >= 0"]),
    ("runs_per_gpu", 0, ["runs_per_gpu: 0", "whole number >= 1"]),
    ("runs_per_gpu", 1.5, ["runs_per_gpu: 1.5", "whole number >= 1"]),
    ("threads", 0, ["threads: 0", "whole number >= 1"]),
    ("runs_per_gpus", 2, ["'runs_per_gpus'", "did you mean 'runs_per_gpu'"]),
    ("studies", {}, ["studies", "at least one study"]),
    ("studies/tiny/experiment", {}, ["'experiment'", "did you mean 'experiments'"]),
    ("studies/tiny/experiments", {}, ["at least one experiment"]),
    ("studies/tiny/experiments/b; rm -rf x", {"method": "vi"}, ["'b; rm -rf x' is no name"]),
    ("studies/tiny/experiments/vi/seed", [], ["seed", "non-empty list"]),
    ("studies/tiny/experiments/vi/seed", None, ["seed", "a grid (option: value or list of values)"]),
    ("studies/tiny/experiments/vi/seed", -1, ["seed is -1", "experiments.vi"]),
    ("studies/tiny/experiments/vi/lr", "1e-3", ["lr is '1e-3'", "must be a number", "write 0.001"]),
    ("studies/tiny/experiments/vi/density", 0.1, ["'vi' does not use density", "experiments.vi"]),
    ("studies/tiny/experiments/vi/methd", "vi", ["'methd'", "did you mean 'method'"]),
    ("studies/tiny/experiments/vi/method", "rigel", ["method 'rigel'", "did you mean 'rigl'"]),
    ("studies/tiny/experiments/vi/preset", "oficial", ["preset 'oficial'", "did you mean 'official'"]),
    ("studies/tiny/experiments/ssvi/0/density", 0, ["density is 0", "> 0 and <= 1", "experiments.ssvi[0]"]),
    ("studies/tiny/experiments/ssvi/0/density", [0.1, 1.5], ["density is 1.5"]),
    ("studies/tiny/experiments/ssvi/0/criterion", "snrabs", ["'snrabs'", "did you mean 'snr_abs'"]),
    ("studies/tiny/train/dataset", "cifr10", ["dataset 'cifr10'", "did you mean 'cifar10'", "train"]),
    ("studies/tiny/train/epoch", 3, ["'epoch'", "did you mean 'epochs'"]),
    ("studies/tiny/train/epochs", [1, 0], ["epochs is 0", ">= 1"]),
    ("studies/tiny/like", 3, ["studies.tiny.like", "the name of another study"]),
    ("studies/tiny/quick", ["tabel1"], ["table or figure 'tabel1'", "did you mean 'table1'"]),
    ("studies/tiny/train/preset", "best", ["preset 'best'"]),
    ("studies/tiny/tables/table1", ["v"], ["experiment 'v'", "did you mean 'vi'"]),
    ("studies/tiny/tables/table1", "vi", ["non-empty list of experiments"]),
    ("studies/tiny/tables/tabel1", ["vi"], ["table 'tabel1'", "did you mean 'table1'"]),
    ("studies/tiny/figures/curve", ["vi"], ["figure 'curve'", "did you mean 'curves'"]),
]


@pytest.mark.parametrize(("path", "value", "words"), BAD)
def test_a_bad_config_is_one_line(path: str, value: object, words: list[str]) -> None:
    config = changed(path, value)
    with pytest.raises(UserError) as caught:
        check_everything(config)
    message = str(caught.value)
    assert message.startswith("my.yaml")
    assert all(word in message for word in words), message
    assert "\n" not in message


def check_everything(config: dict) -> None:
    check_config(config, "my.yaml")
    check_output_names(config, "tables", TABLES, RUN_COLUMNS, "my.yaml")
    check_output_names(config, "figures", FIGURES, RUN_COLUMNS, "my.yaml")


def test_shared_option_that_no_method_uses() -> None:
    config = changed("studies/tiny/experiments", {"vi": {"method": "vi"}})
    config["studies"]["tiny"].update(tables={}, figures={})
    with pytest.raises(UserError, match="delta_t is 5, but no method of this study uses delta_t"):
        check_config(config, "my.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "study: [", "\tstudy: x", "3"])
def test_a_file_that_is_no_config_is_one_line(tmp_path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml") as caught:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


scalars = st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=True) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(scalars | st.text(max_size=8), x, max_size=3)
)


@given(st.sampled_from([path for path, _, _ in BAD]), values)
def test_whatever_is_written_somewhere_it_works_or_is_one_line(path: str, value: object) -> None:
    message = ""
    try:
        check_config(changed(path, value), "my.yaml")
    except UserError as error:
        message = str(error)
    assert "\n" not in message


def test_the_readme_shows_configs_that_are_good(shipped: dict) -> None:
    text = (ROOT / "README.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    studies = [yaml.safe_load(block) for block in blocks]
    assert studies
    for study in studies:
        # with the one that one of them is like
        base = {"cifar10": shipped["studies"]["cifar10"]}
        check_everything({**shipped, "study": next(iter(study)), "studies": {**base, **study}})


SPELLINGS = (
    "folder:images/pets/",
    "folder:./images/pets",
    "folder:images//pets",
    "folder:link",
    "folder:images/x/../pets",
)


@pytest.mark.parametrize("other", SPELLINGS)
@pytest.mark.parametrize("place", ["one study", "another study"])
def test_one_folder_of_images_is_spelt_in_one_way(tmp_path, monkeypatch, place: str, other: str) -> None:
    """Two spellings would be two data sets with runs of their own, and their rows would stand side by side."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "pets").mkdir(parents=True)
    (tmp_path / "images" / "x").mkdir()
    (tmp_path / "link").symlink_to("images/pets")
    first = "folder:images/pets"
    config = changed("studies/tiny/train/dataset", [first, other] if place == "one study" else first)
    if place != "one study":
        config["studies"]["two"] = {"like": "tiny", "train": {"dataset": other}}
    with pytest.raises(UserError) as caught:
        check_config(config, "config.yaml")
    study = "tiny" if place == "one study" else "two"
    said = f"config.yaml: studies.{study}: dataset is {other!r}, the same folder as {first!r}; write it in one way."
    assert str(caught.value) == said
    check_config(changed("studies/tiny/train/dataset", [first, "folder:images/x"]), "config.yaml")
