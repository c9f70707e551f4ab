"""Every removal criterion, addition rule, network and method, by name: where its code is. A new one is a line here.

Standard library only: planning, tables and figures know names by this file, without importing torch. What is built in
stands here; plugins (`ssvi.runs.plugins`) add theirs to the same registries.
"""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssvi.errors import UserError, quoted


def found(code: str, what: str) -> Any:
    """The function or class that an import string stands for.

    Args:
        code: `module:attribute`.
        what: in the message, as in `criterion 'snr'`.

    Raises:
        UserError: if there is no such module or attribute, it is something else, or the module breaks.
    """
    module, _, attribute = code.partition(":")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever somebody's code does when it is run
        if module.partition(".")[0] == __package__:
            raise
        raise UserError(f"{what}: {code} cannot be imported: {broken(error)}.") from error
    if not hasattr(imported, attribute):
        raise UserError(f"{what}: {code} leads nowhere: {getattr(imported, '__file__', module)} has no {attribute!r}.")
    if not callable(there := getattr(imported, attribute)):
        raise UserError(f"{what}: {code} is {quoted(there)}, but must be a function or a class.")
    return there


def broken(error: Exception) -> str:
    """An error of somebody's module in words, with the last line of it that was reached."""
    ours = ("<frozen", os.path.dirname(__file__), importlib.__file__)
    theirs = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(ours)]
    # a SyntaxError says itself where it is
    where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs and type(error) is not SyntaxError else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


class Registry(MutableMapping[str, Any]):
    """Names in reading order, and what each stands for; an import string `module:attribute` is followed when its name
    is looked up, not before.

    Attributes:
        kind: of what it holds, in messages.
        sources: the module of the plugin that brought a name; built-in ones are not in it.
    """

    def __init__(self, kind: str, entries: dict[str, Any]) -> None:
        self.kind, self._entries, self.sources = kind, dict(entries), dict[str, str]()

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        return found(entry, f"{self.kind} {name!r}") if isinstance(entry, str) else entry

    def __setitem__(self, name: str, entry: Any) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        self.sources.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def code(self, name: str) -> str:
        """Where a name's code is: `module:attribute`."""
        entry = self._entries[name]
        return getattr(entry, "code", entry)

    def place(self, name: str) -> int:
        """Where a name stands among all."""
        return list(self._entries).index(name)

    def add(self, name: str, entry: Any, source: str) -> None:
        """Take in what a plugin brings.

        Raises:
            UserError: if the name is taken.
        """
        if name in self:
            owner = f"plugin {self.sources[name]!r} has" if name in self.sources else "is built in"
            raise UserError(f"plugin {source!r}: {self.kind} {name!r} {owner} already; give yours another name.")
        self[name], self.sources[name] = entry, source


class Among(Sequence[str]):
    """The names for which something holds, of all that a registry has when this is asked."""

    def __init__(self, registry: Registry, holds: Callable[[str], bool]) -> None:
        self._registry, self._holds = registry, holds

    def _names(self) -> tuple[str, ...]:
        return tuple(filter(self._holds, self._registry))

    def __getitem__(self, place: Any) -> Any:
        return self._names()[place]

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()


CRITERIA = Registry(
    "criterion",
    {
        "abs_mu": "ssvi.core.criteria:abs_mu",
        "snr": "ssvi.core.criteria:snr",
        "e_abs": "ssvi.core.criteria:e_abs",
        "snr_abs": "ssvi.core.criteria:snr_abs",
        "e_exp": "ssvi.core.criteria:e_exp",
        "snr_exp": "ssvi.core.criteria:snr_exp",
    },
)
# In these is no lambda; any other one may use exp_lambda.
WITHOUT_LAMBDA = ("abs_mu", "snr", "e_abs", "snr_abs")
WITH_LAMBDA = Among(CRITERIA, lambda name: name not in WITHOUT_LAMBDA)

# What is made of a gradient to rank candidates; these differ in whose gradient it is (`ssvi.methods.growth`).
ADDITIONS = Registry("addition", dict.fromkeys(("mc1", "mean", "mcK"), "ssvi.core.criteria:modulus"))

MODELS = Registry(
    "model",
    {"mlp": "ssvi.core.models:mlp", "resnet8": "ssvi.core.models:resnet8", "resnet18": "ssvi.core.models:resnet18"},
)

# Groups of options that methods have in common; those that every run has are in `COMMON`.
COMMON = (
    *("dataset", "model", "method", "seed", "width", "image_size"),
    *("shrink", "training_images", "held_out_classes", "validation", "normalisation"),
)
# What a parent always has in common with its child.
INHERITED = tuple(name for name in COMMON if name != "method")
TRAINING = ("augment", "flip", "epochs", "batch_size", "precision", "record_best_test")
SGD = (*TRAINING, "optimizer", "lr", "momentum", "weight_decay")
ADAM = (*TRAINING, "adam_lr", "kl_weight")
GAUSSIAN = (
    *("parameterisation", "sampling", "lrt_epsilon", "prior_sigma"),
    *("kl_scale", "kl_warmup", "sigma_lr", "sigma_optimizer"),
    *("posterior_optimizer", "ivon_lr", "curvature_memory", "curvature_beta", "step_clip"),
)
START = ("mean_init", "mu_init_sd", "sigma_init", "sigma_init_sd", "curvature_init")
MASKS = ("density", "allocation")
UPDATES = ("delta_t", "alpha", "update_until", "update_step")
SCORES = ("criterion", "exp_lambda", "score_arithmetic")
GROWTH = (
    *("addition", "addition_samples", "addition_average", "addition_gradient"),
    *("grow_sigma", "grow_sigma_value"),
)


@dataclass(frozen=True)
class Kind:
    """A method, as far as everything but its own code needs to know it.

    Attributes:
        code: module and class.
        title: in tables and figures.
        factors: options that always stand in a run's path, in this order.
        uses: options that it uses beside `COMMON`.
        flops: counted training FLOPs of an image, M being the multiply-adds of the plain dense network.
        posterior: whether it predicts with samples of a posterior.
        chain: whether these are states kept of its training, of which there may be fewer than are asked for.
        parents: methods that a parent may have.
        needs_parent: whether it cannot do without one.
        same_to_the_end: whether its network is the same after an epoch as it would be if the training ended there:
            nothing is pruned at the end, and predictions need no states from other epochs. Where it is not said, that
            of a method with the common optimiser (option `lr`) is taken to be.
        of_members: whether its parents are networks of which it has `members`, each with an equal share of its
            density and a seed of its own; else it has one parent, of its own seed.
        untrained: whether `epochs` may be 0, because a parent that is not trained on is a result too.
    """

    code: str
    title: str
    factors: tuple[str, ...]
    uses: tuple[str, ...]
    flops: str
    posterior: bool = False
    chain: bool = False
    parents: tuple[str, ...] = ()
    needs_parent: bool = False
    same_to_the_end: bool | None = None
    of_members: bool = False
    untrained: bool = False

    def __post_init__(self) -> None:
        if self.same_to_the_end is None:
            object.__setattr__(self, "same_to_the_end", "lr" in self.uses)

    @property
    def options(self) -> tuple[str, ...]:
        """Every option that it uses."""
        return (*COMMON, *self.uses, *(("parent",) if self.parents else ()))

    @property
    def hands_down(self) -> tuple[str, ...]:
        """Options that its parents take from it."""
        return (*INHERITED, "density") if self.of_members else INHERITED


# In reading order of tables; Bayesian networks that are sparse come last, SSVI at the end.
KINDS = Registry(
    "method",
    {
        "dense": Kind("ssvi.methods.dense:Dense", "dense network", ("lr",), SGD, "6 M", same_to_the_end=True),
        "vi": Kind(
            "ssvi.methods.vi:VI",
            "dense BNN",
            ("sigma_init",),
            (*SGD, *GAUSSIAN, *START),
            "12 M",
            posterior=True,
            same_to_the_end=True,
        ),
        "rigl": Kind(
            "ssvi.methods.rigl:RigL",
            "RigL",
            ("density", "lr"),
            (*SGD, "mean_init", *MASKS, *UPDATES),
            "6 M × density, growth passes",
            same_to_the_end=True,
        ),
        "static": Kind(
            "ssvi.methods.rigl:Static",
            "static sparse",
            ("density", "lr"),
            (*SGD, "mean_init", *MASKS),
            "6 M × density",
            same_to_the_end=True,
        ),
        "ensemble": Kind(
            "ssvi.methods.ensemble:Ensemble",
            "sparse ensemble",
            ("density", "members"),
            ("density", "members"),
            "its members' alone",
            parents=("rigl", "static"),
            needs_parent=True,
            of_members=True,
        ),
        "vd": Kind(
            "ssvi.methods.vd:VD",
            "VD",
            ("kl_weight",),
            (*ADAM, "kl_ramp", "mu_init_sd", "lrt_epsilon", "log_variance_init", "log_alpha_threshold"),
            "12 M, dense to the end",
            posterior=True,
            parents=("dense", "vi"),
        ),
        "sbp": Kind(
            "ssvi.methods.sbp:SBP",
            "SBP",
            ("kl_weight",),
            (*ADAM, "gate_noise", "snr_threshold"),
            "6 M, dense to the end",
            posterior=True,
            parents=("dense",),
        ),
        "aeb": Kind(
            "ssvi.methods.aeb:AEB",
            "AEB",
            ("density", "aeb_prior"),
            (*TRAINING, "density", "aeb_prior", "aeb_lr", "momentum", "weight_decay"),
            "6 M, dense to the end",
            posterior=True,
            chain=True,
            parents=("dense",),
        ),
        "mbnn": Kind(
            "ssvi.methods.mbnn:MBNN",
            "mBNN",
            ("mask_lambda",),
            (*TRAINING, "mask_lambda", "mask_period", "mbnn_lr", "widening"),
            "6 × multiply-adds between living channels × (1 + 2/mask_period)",
            posterior=True,
            chain=True,
        ),
        "pruned": Kind(
            "ssvi.methods.ssvi:Pruned",
            "pruned BNN",
            ("density", "criterion"),
            (*SGD, *GAUSSIAN, *MASKS, *SCORES),
            "12 M × density",
            posterior=True,
            same_to_the_end=True,
            parents=("vi",),
            needs_parent=True,
            untrained=True,
        ),
        "static_vi": Kind(
            "ssvi.methods.ssvi:StaticVI",
            "static sparse BNN",
            ("density", "sigma_init"),
            (*SGD, *GAUSSIAN, *START, *MASKS),
            "12 M × density",
            posterior=True,
            same_to_the_end=True,
        ),
        "ssvi": Kind(
            "ssvi.methods.ssvi:SSVI",
            "SSVI",
            ("density", "criterion", "sigma_init"),
            (*SGD, *GAUSSIAN, *START, *MASKS, *UPDATES, *SCORES, *GROWTH),
            "12 M × density, growth passes",
            posterior=True,
            same_to_the_end=True,
        ),
    },
)


def using(option: str) -> Among:
    """The methods that use an option."""
    return Among(KINDS, lambda name: option in KINDS[name].options)


# Methods by what they have: a Gaussian posterior of each weight; a density that is asked for; a subspace with a
# posterior that is updated; no posterior at all.
VARIATIONAL = using("prior_sigma")
SPARSE = using("density")
SUBSPACE = using("grow_sigma")
POINT = Among(KINDS, lambda name: not KINDS[name].posterior)
