"""Every training method: where its code is, which options it uses, what it is called. A new one is a line here.

Standard library only: planning, tables and figures know methods by this file, without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass

# Groups of options that methods have in common; those that every run has are in `COMMON`.
COMMON = ("dataset", "model", "method", "seed", "width", "image_size", "validation", "normalisation")
TRAINING = ("augment", "flip", "epochs", "batch_size", "precision", "record_best_test")
SGD = (*TRAINING, "lr", "momentum", "weight_decay")
ADAM = (*TRAINING, "adam_lr", "kl_weight")
GAUSSIAN = (
    *("parameterisation", "sampling", "lrt_epsilon", "prior_sigma"),
    *("kl_scale", "kl_warmup", "sigma_lr", "sigma_optimizer"),
)
START = ("mu_init_sd", "sigma_init", "sigma_init_sd")
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

    @property
    def same_to_the_end(self) -> bool:
        """Whether its network is the same after an epoch as it would be if the training ended there: nothing is pruned
        at the end, and predictions need no states from other epochs."""
        return "lr" in self.uses

    @property
    def options(self) -> tuple[str, ...]:
        """Every option that it uses."""
        return (*COMMON, *self.uses, *(("parent",) if self.parents else ()))


# In reading order of tables; Bayesian networks that are sparse come last, SSVI at the end.
KINDS: dict[str, Kind] = {
    "dense": Kind("ssvi.methods.base:Method", "dense network", ("lr",), SGD, "6 M"),
    "vi": Kind("ssvi.methods.vi:VI", "dense BNN", ("sigma_init",), (*SGD, *GAUSSIAN, *START), "12 M", posterior=True),
    "rigl": Kind(
        "ssvi.methods.rigl:RigL", "RigL", ("density", "lr"), (*SGD, *MASKS, *UPDATES), "6 M × density, growth passes"
    ),
    "static": Kind("ssvi.methods.static:Static", "static sparse", ("density", "lr"), (*SGD, *MASKS), "6 M × density"),
    "ensemble": Kind(
        "ssvi.methods.ensemble:Ensemble",
        "sparse ensemble",
        ("density", "members"),
        ("density", "members"),
        "its members' alone",
        parents=("rigl", "static"),
        needs_parent=True,
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
        "ssvi.methods.static:Pruned",
        "pruned BNN",
        ("density", "criterion"),
        (*SGD, *GAUSSIAN, *MASKS, *SCORES),
        "12 M × density",
        posterior=True,
        parents=("vi",),
        needs_parent=True,
    ),
    "static_vi": Kind(
        "ssvi.methods.static:StaticVI",
        "static sparse BNN",
        ("density", "sigma_init"),
        (*SGD, *GAUSSIAN, *START, *MASKS),
        "12 M × density",
        posterior=True,
    ),
    "ssvi": Kind(
        "ssvi.methods.ssvi:SSVI",
        "SSVI",
        ("density", "criterion", "sigma_init"),
        (*SGD, *GAUSSIAN, *START, *MASKS, *UPDATES, *SCORES, *GROWTH),
        "12 M × density, growth passes",
        posterior=True,
    ),
}


def using(option: str) -> tuple[str, ...]:
    """The methods that use an option."""
    return tuple(name for name, kind in KINDS.items() if option in kind.options)


# Methods by what they have: a Gaussian posterior of each weight; a density that is asked for; a subspace that is
# updated, and one with a posterior; no posterior at all.
VARIATIONAL = using("prior_sigma")
SPARSE = using("density")
MOVING = using("delta_t")
SUBSPACE = using("grow_sigma")
POINT = tuple(name for name, kind in KINDS.items() if not kind.posterior)
