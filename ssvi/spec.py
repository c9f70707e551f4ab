"""What a run is: a frozen `RunSpec`, its validation, its presets and its path.

Standard library only, so that the workflow can plan hundreds of runs without importing torch.
Rules that keep old results valid: every new option has a default that switches its effect off,
and a run's path holds the factors of its method and whatever else differs from the defaults.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ssvi.errors import UserError, quoted, unknown
from ssvi.registry import ADDITIONS, CRITERIA, KINDS, MODELS, WITH_LAMBDA, using

DATASETS = ("digits", "cifar10", "cifar100")
FOLDER_PREFIX = "folder:"
# Any data set of one's own, in `NEEDS` and in messages.
ANY_FOLDER = "folder:PATH"
# What a path may not contain: it ends up in commands, patterns and messages.
REFUSED_IN_PATHS = re.compile(r"""[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff;&|<>$`"'\\*?{}]""")

# What a parent always has in common with its child.
INHERITED = ("dataset", "model", "width", "image_size", "validation", "normalisation", "seed")

# Numbers as they are written on a command line and in a parent's text.
WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

# Numbers that everything they come to can hold: counters, file names, and float32, in which networks are trained. In
# it a number below SMALLEST in size has lost digits or is 0.
LARGEST = {int: 2**63 - 1, float: (2 - 2**-23) * 2.0**127}
SMALLEST = 2.0**-126


def option(
    default: Any,
    help: str,
    *,
    choices: Collection[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
) -> Any:
    """A field of `RunSpec` with what validation, the command line and the docs need to know."""
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": choices,
            "low": low,
            "high": high,
            "open_low": open_low,
        },
    )


@dataclass(frozen=True)
class RunSpec:
    """One training, completely described. Everything else is derived from it."""

    dataset: str = option("digits", "digits, cifar10, cifar100 or folder:PATH (class folders under train/ and test/)")
    model: str = option("resnet18", "network", choices=MODELS)
    method: str = option("ssvi", "training method", choices=KINDS)
    seed: int = option(0, "seed of every random stream", low=0, high=2**63 - 1)

    width: float = option(1.0, "factor on the network's number of channels", low=0.0, high=100.0, open_low=True)
    image_size: int = option(32, "side in pixels to which the images of folder:PATH are resized", low=4, high=512)
    validation: float = option(0.1, "fraction of the training set held out, the same for every seed", low=0.0, high=0.5)
    parent: str = option(
        "",
        "the run to start from, which is trained first: its method and options, as in vi,epochs=12; empty is none",
    )
    normalisation: str = option(
        "pixels",
        "sd of CIFAR-10's colours: over all pixels, or the mean of each image's own, as many published codes have it",
        choices=("pixels", "images"),
    )
    augment: bool = option(True, "random crops, and mirrored images where `flip` has them")
    flip: str = option(
        "auto",
        "mirror half of the images left to right: auto is horizontal for cifar10 and cifar100 and none for digits and "
        "folder:PATH, where the mirror image of a letter or an arrow is another one",
        choices=("auto", "none", "horizontal"),
    )
    epochs: int = option(
        200,
        "passes over the training set; 0 only for method pruned: its parent is pruned and that is all",
        low=0,
        high=1_000_000,
    )
    batch_size: int = option(128, "images per step", low=2)
    lr: float = option(0.01, "learning rate at the start; cosine to 0, once an epoch", low=0.0, open_low=True)
    momentum: float = option(0.9, "momentum of SGD", low=0.0, high=0.9999)
    weight_decay: float = option(5e-4, "L2 decay of mu, weights, biases, BatchNorm; never of rho", low=0.0)
    precision: str = option(
        "auto",
        "auto is fp32 on a CPU and bf16 autocast on CUDA",
        choices=("auto", "fp32", "bf16"),
    )
    record_best_test: bool = option(
        False,
        "also record the best test accuracy over the epochs (posterior mean), in a column of its own",
    )

    mu_init_sd: float = option(0.01, "sd of mu at the start", low=0.0)
    sigma_init: float = option(0.0006, "mean of sigma at the start", low=0.0, open_low=True)
    sigma_init_sd: float = option(0.0005, "sd of sigma at the start", low=0.0)
    parameterisation: str = option("softplus", "sigma as a function of rho", choices=("softplus", "exp", "abs"))
    sampling: str = option(
        "local",
        "noise of a training step: local reparameterisation (eq. 4) or one weight sample a batch",
        choices=("local", "weight"),
    )
    lrt_epsilon: float = option(
        1e-8,
        "added to the variance under the root of eq. 4",
        low=0.0,
        open_low=True,
    )
    prior_sigma: float = option(0.005, "sd of the prior N(0, prior_sigma^2)", low=0.0, open_low=True)
    kl_scale: float = option(0.01, "weight of KL/N in the loss; 1 is the ELBO, less a cold posterior", low=0.0)
    kl_warmup: bool = option(True, "scale the KL by min(2 epoch/epochs, 1)")
    sigma_lr: float = option(0.01, "learning rate of rho", low=0.0)
    sigma_optimizer: str = option("sgd", "optimiser of rho", choices=("sgd", "adam"))

    density: float = option(0.1, "kept fraction s/d of the weights", low=0.0, high=1.0, open_low=True)
    allocation: str = option("uniform", "how the density is shared by the layers", choices=("uniform", "erk", "global"))
    delta_t: int = option(100, "steps between two updates of the subspace (the paper's M)", low=1)
    alpha: float = option(0.3, "drop fraction alpha/2 (1 + cos(pi t/t_end))", low=0.0, high=1.0)
    update_until: float = option(
        0.75, "fraction of the training after which the subspace stays as it is", low=0.0, high=1.0
    )
    update_step: str = option(
        "take",
        "at an update, take the optimiser's step first, or skip it as the official code does",
        choices=("take", "skip"),
    )
    criterion: str = option("snr_abs", "removal criterion", choices=CRITERIA)
    exp_lambda: float = option(1.0, "lambda of the criteria e_exp and snr_exp (eq. 8)", low=0.0, open_low=True)
    score_arithmetic: str = option(
        "stable",
        "scores by stable formulas, or naively in float32 with NaN set to 0",
        choices=("stable", "naive"),
    )
    addition: str = option("mc1", "addition criterion (section 3.3.2)", choices=ADDITIONS)
    addition_samples: int = option(1, "K of the addition criterion mcK", low=1, high=10_000)
    addition_average: str = option(
        "absolute",
        "mcK: mean of |gradient| at fixed parameters, or |mean| of K consecutive signed gradients",
        choices=("absolute", "signed"),
    )
    addition_gradient: str = option(
        "data",
        "gradient that ranks candidates: of the data term, or with the KL",
        choices=("data", "total"),
    )
    grow_sigma: str = option(
        "mean",
        "sigma of an added weight: mean of the module's active sigma, softplus of the mean rho, or a constant",
        choices=("mean", "mean_rho", "constant"),
    )
    grow_sigma_value: float = option(1e-6, "the constant of grow_sigma", low=0.0, open_low=True)

    adam_lr: float = option(
        0.001,
        "learning rate of Adam; constant, then linear to 0 (vd: from half of the epochs on, sbp: from five sixths)",
        low=0.0,
        open_low=True,
    )
    kl_weight: float = option(1.0, "weight of KL/N in the loss; 1 is the ELBO", low=0.0)
    kl_ramp: float = option(
        0.1, "fraction of the epochs over which the weight of the KL grows from 0", low=0.0, high=1.0
    )
    log_variance_init: float = option(-10.0, "log sigma^2 at the start", low=-40.0, high=10.0)
    log_alpha_threshold: float = option(
        3.0, "weights with a log alpha = log(sigma^2/theta^2) above are pruned", low=-10.0, high=10.0
    )
    gate_noise: str = option(
        "example",
        "channel noise drawn for each image, or one draw a batch with BatchNorm frozen as in the official code",
        choices=("example", "batch"),
    )
    snr_threshold: float = option(1.0, "channels whose noise has a signal-to-noise ratio below are pruned", low=0.0)
    aeb_lr: float = option(
        1e-4,
        "learning rate of SGHMC on the mean loss; a tenth of it from 70 %, a hundredth from 90 % of the epochs",
        low=0.0,
        open_low=True,
    )
    aeb_prior: str = option(
        "described",
        "a spike narrower than the slab, as the method is described, or the published settings, where it is wider",
        choices=("described", "published"),
    )
    mbnn_lr: float = option(
        0.5,
        "learning rate of SGLD on the mean loss; cosine to a hundredth over half of the epochs, then constant",
        low=0.0,
        open_low=True,
    )
    mask_lambda: float = option(
        0.05, "lambda of the prior on the number of nodes, exp(-(lambda log N)^5 |m|^2)", low=0.0
    )
    mask_period: int = option(10, "steps between two proposals of a birth or death of nodes", low=1)
    widening: float = option(
        1.25,
        "the network is wider than its name says by this factor, and starts with as many nodes as it says",
        low=1.0,
        high=100.0,
    )
    members: int = option(
        5, "networks of the ensemble; each has density/members and a seed of its own", low=2, high=1000
    )

    def __post_init__(self) -> None:
        for name in FIELDS:
            object.__setattr__(self, name, _plain(getattr(self, name), FIELDS[name].default))
        validate(dataclasses.asdict(self), where="run spec")
        if self.parent != parent_text(dataclasses.asdict(self), "run spec"):
            raise UserError(f"run spec: parent is {self.parent!r}, which is not in its one canonical form.")

    @property
    def training_epochs(self) -> int:
        """Epochs of its own training: none for a method that only puts its parents together."""
        return self.epochs if "epochs" in KINDS[self.method].uses else 0


FIELDS = {f.name: f for f in dataclasses.fields(RunSpec)}

# Options that have an effect only where another one has one of these values.
NEEDS: dict[str, tuple[str, Collection[str | bool]]] = {
    "flip": ("augment", (True,)),
    "image_size": ("dataset", (ANY_FOLDER,)),
    "normalisation": ("dataset", ("cifar10",)),
    "addition_samples": ("addition", ("mcK",)),
    "addition_average": ("addition", ("mcK",)),
    "grow_sigma_value": ("grow_sigma", ("constant",)),
    "exp_lambda": ("criterion", WITH_LAMBDA),
    "lrt_epsilon": ("sampling", ("local",)),
}

# `preset: official` selects what the published code does wherever that is not our default.
PRESETS: dict[str, dict[str, Any]] = {
    "official": {
        "grow_sigma": "mean_rho",
        "update_step": "skip",
        "score_arithmetic": "naive",
        "addition_gradient": "total",
        "addition_average": "signed",
        "record_best_test": True,
        "validation": 0.0,
        "normalisation": "images",
        "precision": "fp32",
    }
}


def options_of(method: str) -> set[str]:
    """Names of the options that `method` uses."""
    return set(KINDS[method].options)


def _plain(value: Any, like: Any) -> Any:
    """A value as this module writes it, so that equal specs have one path: no NumPy scalar, int for a float, or -0.0.

    What is of another kind than `like`, the option's default, is left to `validate`.
    """
    if not isinstance(value, str) and callable(item := getattr(value, "item", None)):
        value = item()
    if isinstance(value, str):
        return str(value)
    number = isinstance(like, float) and isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) + 0.0 if number and abs(value) <= LARGEST[float] else value


def _type_error(name: str, value: Any, where: str) -> UserError | None:
    expected = type(FIELDS[name].default)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[expected]
    good = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    if good or (expected is float and isinstance(value, int) and not isinstance(value, bool)):
        return None
    hint = ""
    if isinstance(value, str) and "e" in value.lower() and DECIMAL.fullmatch(value):
        number = _number_for_yaml(name, value) if len(value) < 400 else ""
        hint = f" YAML reads {value} as text: write {number}." if number else ""
    elif isinstance(value, str) and re.fullmatch(r"[+-]?0[0-9_]+", value, re.ASCII):
        hint = f" YAML reads {value} as text: write it without the zero in front."
    elif isinstance(value, bool) and expected is str:
        hint = " YAML reads yes, no, on and off as true and false: write a word in quotes."
    return UserError(f"{where}: {name} is {quoted(value)}, but must be {words}.{hint}")


def _number_for_yaml(name: str, text: str) -> str:
    """A number with an exponent, written so that YAML reads it as one; empty where the option cannot have it."""
    number: int | float = float(text)
    lost = number == 0 and re.search("[1-9]", text.lower().split("e")[0])
    if lost or not math.isfinite(number):
        return ""
    if isinstance(FIELDS[name].default, int):
        if not number.is_integer():
            return ""
        number = int(Fraction(text)) if number else 0
    try:
        validate({name: number}, "")
    except UserError:
        return ""
    # YAML takes no number with an exponent for one unless there is a point in front of that
    return re.sub(r"^([+-]?\d+)e", r"\1.0e", repr(number))


def validate(options: Mapping[str, Any], where: str) -> None:
    """Check names, types, choices and ranges of run options, one by one.

    Raises:
        UserError: naming the option, its value, what is allowed, and `where` it was read.
    """
    for name, value in options.items():
        if name not in FIELDS:
            raise unknown("option", name, FIELDS, where)
        if (problem := _type_error(name, value, where)) is not None:
            raise problem
        meta = FIELDS[name].metadata
        if meta["choices"] and value not in meta["choices"]:
            raise unknown(name, value, meta["choices"], where)
        if not isinstance(value, bool) and isinstance(value, int | float):
            _check_range(name, value, where)
    if "dataset" in options:
        _check_dataset(options["dataset"], where)


def _check_range(name: str, value: int | float, where: str) -> None:
    meta = FIELDS[name].metadata
    low, high, open_low = meta["low"], meta["high"], meta["open_low"]
    largest = LARGEST[type(FIELDS[name].default)]
    too_low = low is not None and (value <= low if open_low else value < low)
    too_high = (high is not None and value > high) or value > largest
    too_small = isinstance(value, float) and 0 < abs(value) < SMALLEST and not too_low
    if too_low or too_high or too_small or not value >= -largest:
        allowed = [bounds(name)] if bounds(name) else []
        if too_high and high is None:
            allowed.append(f"<= {largest:g}")
        if too_small:
            allowed.append(f"{'' if open_low else '0 or '}at least {SMALLEST:g} in size, as float32 has it")
        raise UserError(f"{where}: {name} is {_number(value)}, but must be {' and '.join(allowed) or 'finite'}.")


def bounds(name: str) -> str:
    """The range of a numeric option in words, empty where it has none."""
    meta = FIELDS[name].metadata
    low = [f"{'>' if meta['open_low'] else '>='} {meta['low']:g}"] if meta["low"] is not None else []
    high = [f"<= {meta['high']:g}"] if meta["high"] is not None else []
    return " and ".join(low + high)


def _number(value: int | float) -> str:
    return "too large" if isinstance(value, int) and abs(value) > sys.float_info.max else f"{value:g}"


def _check_dataset(dataset: str, where: str) -> None:
    if dataset.startswith(FOLDER_PREFIX):
        if not dataset.removeprefix(FOLDER_PREFIX):
            raise UserError(f"{where}: dataset is {dataset!r}, but folder: needs a path, as in folder:images/pets.")
        if bad := REFUSED_IN_PATHS.search(dataset):
            raise UserError(
                f"{where}: dataset is {dataset!r}, but a path must not contain {bad[0]!r}, nor any other of "
                "; & | < > $ ` \" ' \\ * ? { } and control characters."
            )
    elif dataset not in DATASETS:
        raise unknown("dataset", dataset, [*DATASETS, ANY_FOLDER], where)


def parse_parent(text: str, where: str) -> dict[str, Any]:
    """The options named in a parent's text, `method,option=value,...`.

    Raises:
        UserError: for text of another form, and for unknown or ill-typed options.
    """
    method, *words = text.split(",")
    options: dict[str, Any] = {"method": method}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{where}: parent is {text!r}, but must be a method and options, as in vi,epochs=12.")
        if name not in FIELDS:
            raise unknown("option", name, FIELDS, f"{where}: parent")
        if name in options:
            raise UserError(f"{where}: parent is {text!r}, but has {name} twice.")
        options[name] = _parse(value, FIELDS[name].default)
    return options


def _parse(text: str, like: Any) -> Any:
    """A value from its text, of the type of another one; the text itself where it is none."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text, text)
    try:
        return text if isinstance(like, str) else parse_number(text, type(like))
    except ValueError:
        return text


def parse_number(text: str, kind: type[int] | type[float]) -> int | float:
    """A number in plain decimal notation, which is less than Python reads: no 1_000, 010, inf, blanks or other digits.

    Raises:
        ValueError: for any other text.
    """
    if not (WHOLE if kind is int else DECIMAL).fullmatch(text):
        raise ValueError(text)
    return kind(text)


def parent_text(child: Mapping[str, Any], where: str) -> str:
    """The canonical text of the parent in a child's options: its method and what differs from the defaults.

    Raises:
        UserError: if the child's method takes no such parent, needs one and has none, or the parent is no run.
    """
    method, text = child.get("method", RunSpec.method), child.get("parent", "")
    kind = KINDS[method]
    if not text:
        if kind.needs_parent:
            raise UserError(f"{where}: method {method!r} needs a parent, as in parent: {kind.parents[0]}.")
        return ""
    options = parse_parent(text, where)
    if options["method"] not in kind.parents:
        raise unknown("parent's method", options["method"], kind.parents, where)
    derived = (*INHERITED, "density") if method == "ensemble" else INHERITED
    for name in options:
        if name in derived:
            raise UserError(f"{where}: parent has {name}, but takes it from the run itself; leave it out.")
    if method == "ensemble":
        members, density = child.get("members", RunSpec.members), child.get("density", RunSpec.density)
        if (child.get("seed", 0) + 1) * members >= 2**63:
            raise UserError(f"{where}: seed is {child['seed']}, too large for the seeds of an ensemble's members.")
        if density < SMALLEST * members:
            raise UserError(f"{where}: density is {density!r}, too small for the shares of an ensemble's members.")
    # what only some data sets use was checked with the child
    inherited = {n: child[n] for n in INHERITED if n in child and n not in ("image_size", "normalisation")}
    parent = make_spec(inherited | options, f"{where}: parent")
    words = [f"{k}={flag_text(v)}" for k, v in non_defaults(parent).items() if k not in (*derived, "method")]
    return ",".join([parent.method, *words])


def parents(spec: RunSpec) -> list[RunSpec]:
    """The runs that this one starts from, in order: none, one, or the members of an ensemble."""
    if not spec.parent:
        return []
    options = {name: getattr(spec, name) for name in INHERITED} | parse_parent(spec.parent, "run spec")
    if spec.method != "ensemble":
        return [RunSpec(**options)]
    # of the decimal number that was typed, so that members are the runs that others name
    options["density"] = float(Fraction(repr(spec.density)) / spec.members)
    seeds = range(spec.seed * spec.members, (spec.seed + 1) * spec.members)
    return [RunSpec(**options | {"seed": seed}) for seed in seeds]


def check_preset(name: Any, where: str) -> None:
    """Refuse what is neither None nor the name of a preset."""
    if name is not None and (not isinstance(name, str) or name not in PRESETS):
        raise unknown("preset", name, PRESETS, where)


def expand(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `preset: NAME` by those of its options that matter here; what is given beside it wins."""
    options = dict(options)
    preset = options.pop("preset", None)
    if preset is None:
        return options
    used = options_of(options.get("method", RunSpec.method))
    merged = {k: v for k, v in PRESETS[preset].items() if k in used} | options
    return {k: v for k, v in merged.items() if k in options or k not in idle(merged)}


def idle(options: Mapping[str, Any]) -> set[str]:
    """Options that have no effect because of the value, or the default, of another one (`NEEDS`)."""
    return {
        name for name, (other, _) in NEEDS.items() if not _has_effect(name, options.get(other, FIELDS[other].default))
    }


def _has_effect(name: str, value: Any) -> bool:
    """Whether an option of `NEEDS` has an effect where the one that it needs has this value."""
    values = NEEDS[name][1]
    return value in values or (ANY_FOLDER in values and str(value).startswith(FOLDER_PREFIX))


def needed(name: str) -> str:
    """The values with which another option gives this one an effect, in words."""
    return " or ".join(map(flag_text, NEEDS[name][1]))


def make_spec(options: Mapping[str, Any], where: str = "options") -> RunSpec:
    """Build a `RunSpec` from plain options (with `preset`), refusing what the method does not use.

    Raises:
        UserError: for a bad name, type or value, or an option that has no effect on this run.
    """
    check_preset(options.get("preset"), where)
    validate({k: v for k, v in options.items() if k != "preset"}, where)
    method = options.get("method", RunSpec.method)
    used = options_of(method)
    for name, value in options.items():
        if name != "preset" and name not in used:
            users = ", ".join(using(name))
            raise UserError(
                f"{where}: {name} is {value!r}, but method {method!r} does not use {name} (used by {users})."
            )
    full = expand(options)
    coerced = {k: _plain(v, FIELDS[k].default) for k, v in full.items()}
    if KINDS[method].parents:
        coerced["parent"] = parent_text(coerced, where)
    spec = RunSpec(**coerced)
    _check_effects(spec, options, where)
    return spec


def _check_effects(spec: RunSpec, given: Mapping[str, Any], where: str) -> None:
    """Options that only work together with another: setting them alone would silently do nothing."""
    for name, (other, _) in NEEDS.items():
        if name in given and given[name] != FIELDS[name].default and not _has_effect(name, getattr(spec, other)):
            raise UserError(f"{where}: {name} is {given[name]!r}, but has no effect unless {other} is {needed(name)}.")
    if spec.addition_average == "signed" and spec.addition_samples > spec.delta_t:
        raise UserError(
            f"{where}: addition_samples is {spec.addition_samples}, but consecutive gradients "
            f"(addition_average: signed) must fit between two updates: at most delta_t = {spec.delta_t}."
        )
    if spec.epochs == 0 and spec.method != "pruned":
        raise UserError(f"{where}: epochs is 0, but must be >= 1; only method pruned goes without training.")
    if spec.method == "sbp" and spec.gate_noise == "batch" and not spec.parent:
        raise UserError(
            f"{where}: gate_noise is 'batch', which freezes BatchNorm as it is at the start: it needs a parent, as in "
            "parent: dense."
        )


def non_defaults(spec: RunSpec) -> dict[str, Any]:
    """The options in which `spec` differs from the defaults, in the order of the fields."""
    return {name: v for name in FIELDS if (v := getattr(spec, name)) != FIELDS[name].default}


def _escape(text: str) -> str:
    """A path component from any text, injectively: unsafe bytes become %XX, long ones end in a hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), text)
    if len(safe) <= 120:
        return safe
    return f"{safe[:80]}%~{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _readable(parent: str) -> str:
    """A parent's text as a path component: a comma and an equals sign do no harm there."""
    if len(parent) <= 200:
        return parent
    return f"{parent[:150]},~{hashlib.sha256(parent.encode()).hexdigest()[:24]}"


def _value(value: Any) -> str:
    return _escape(value) if isinstance(value, str) else repr(value)


def run_path(spec: RunSpec) -> str:
    """The run's identity as a readable relative path, an injective function of the spec.

    `digits/resnet8/ssvi/density=0.1/criterion=snr_abs/sigma_init=0.0006/epochs=20/seed=0`: data set,
    model and method, the method's factors, then every other option that is not at its default.
    """
    factors = KINDS[spec.method].factors
    parts = [_escape(spec.dataset), spec.model, spec.method]
    parts += [f"{name}={_value(getattr(spec, name))}" for name in factors]
    apart = (*factors, "dataset", "model", "method", "seed", "parent")
    if spec.parent:
        parts.append(f"parent={_readable(spec.parent)}")
    others = {k: v for k, v in non_defaults(spec).items() if k not in apart}
    line = ""
    for item in (f"{k}={_value(v)}" for k, v in others.items()):
        if line and len(line) + len(item) > 150:
            parts.append(line)
            line = ""
        line = f"{line}+{item}" if line else item
    if line:
        parts.append(line)
    return "/".join([*parts, f"seed={spec.seed}"])


def to_flags(spec: RunSpec) -> list[str]:
    """Command-line flags of `ssvi train` that give exactly this spec (only what is not a default)."""
    return [f"--{name.replace('_', '-')}={flag_text(v)}" for name, v in non_defaults(spec).items()]


def flag_text(value: Any) -> str:
    """A value as it stands behind the equals sign of a flag, or in a parent's text."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def unique(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """Map run paths to specs, each once.

    Raises:
        RuntimeError: if two different specs share a path (a bug in `run_path`, never the user's).
    """
    runs: dict[str, RunSpec] = {}
    for spec in specs:
        path = run_path(spec)
        if runs.setdefault(path, spec) != spec:
            raise RuntimeError(f"two specs share the path {path}: {spec} and {runs[path]}")
    return runs


def with_parents(runs: Mapping[str, RunSpec]) -> dict[str, RunSpec]:
    """The runs and all that they start from, parents first."""

    def line(spec: RunSpec) -> Iterator[RunSpec]:
        for parent in parents(spec):
            yield from line(parent)
        yield spec

    return unique(one for spec in runs.values() for one in line(spec))
