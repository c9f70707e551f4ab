"""Every option of a run: its name, default, help, choices and range, and what it needs to have an effect.

Standard library only. Each option has a default that switches its effect off, which keeps old results valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ssvi.registry import ADDITIONS, CRITERIA, KINDS, MODELS, WITH_LAMBDA

DATASETS = ("digits", "fashion", "mnist", "kmnist", "cifar10", "cifar100")
# The side of their images in pixels.
SIDES = {"digits": 8, "fashion": 28, "mnist": 28, "kmnist": 28, "cifar10": 32, "cifar100": 32}
FOLDER_PREFIX = "folder:"
# Any data set of one's own, in `NEEDS` and in messages.
ANY_FOLDER = "folder:PATH"


def option(
    default: Any,
    help: str,
    *,
    choices: Collection[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
) -> Any:
    """A field of `Options` with what validation, the command line and the docs need to know."""
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


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Options:
    """What options there are, in reading order; `ssvi.runs.spec.RunSpec` holds values of all of them."""

    dataset: str = option("digits", f"{', '.join(DATASETS)} or folder:PATH (class folders under train/ and test/)")
    model: str = option("resnet18", "network", choices=MODELS)
    method: str = option("ssvi", "training method", choices=KINDS)
    seed: int = option(0, "seed of every random stream", low=0, high=2**63 - 1)

    width: float = option(1.0, "factor on the network's number of channels", low=0.0, high=100.0, open_low=True)
    image_size: int = option(32, "side in pixels to which the images of folder:PATH are resized", low=4, high=512)
    shrink: int = option(
        1,
        "the side of the images is divided by it, by PIL's bilinear filter, which averages; not for folder:PATH",
        low=1,
        high=16,
    )
    training_images: int = option(
        0,
        "train on so many of the training set's images, each class in proportion, the same for every seed; 0 is all",
        low=0,
        high=2**40,
    )
    held_out_classes: str = option(
        "",
        "classes that the network never sees, by their numbers from 0 on, as in 4+6: left out of training, validation "
        "and test, they are the images nearest to those it knows that it does not",
    )
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
        "mirror half of the images left to right: auto is horizontal for cifar10, cifar100 and fashion, and none for "
        "the others, where the mirror image of a digit, a letter or an arrow is another one",
        choices=("auto", "none", "horizontal"),
    )
    epochs: int = option(
        200,
        "passes over the training set; 0 only for method pruned: its parent is pruned and that is all",
        low=0,
        high=1_000_000,
    )
    batch_size: int = option(128, "images per step", low=2)
    optimizer: str = option(
        "sgd",
        "SGD with momentum, or AdamW: of mu or plain weights, biases and BatchNorm (where IVON learns the posterior, "
        "of biases and BatchNorm alone)",
        choices=("sgd", "adam"),
    )
    lr: float = option(0.01, "learning rate at the start; cosine to 0, once an epoch", low=0.0, open_low=True)
    momentum: float = option(0.9, "momentum of SGD and IVON, beta_1 of AdamW", low=0.0, high=0.9999)
    weight_decay: float = option(
        5e-4, "decay of mu, weights, biases, BatchNorm (L2 by SGD); never of rho, nor of a mu that IVON learns", low=0.0
    )
    precision: str = option(
        "auto",
        "auto is fp32 on a CPU and bf16 autocast on CUDA",
        choices=("auto", "fp32", "bf16"),
    )
    record_best_test: bool = option(
        False,
        "also record the best test accuracy over the epochs (posterior mean), in a column of its own",
    )

    mean_init: str = option(
        "published",
        "mu or plain weights at the start: as published (mu normal of sd mu_init_sd, plain weights by their fan-in), "
        "uniform in +-1/sqrt(fan-in) as PyTorch has it, or with the fan-in that is active, the layer's mean of it",
        choices=("published", "fan_in", "active_fan_in"),
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
    posterior_optimizer: str = option(
        "sgd",
        "how mu and sigma are learned: by their gradients (`optimizer`, `sigma_optimizer`), or together by the natural "
        "gradient (IVON)",
        choices=("sgd", "ivon"),
    )
    ivon_lr: float = option(
        0.1, "learning rate of IVON at the start, in units of a Newton step; cosine to 0", low=0.0, open_low=True
    )
    curvature_memory: float = option(
        0.25,
        "share of the training that IVON's curvature h remembers: beta_2 is 1 - 1/(curvature_memory steps)",
        low=0.0,
        open_low=True,
        high=10.0,
    )
    curvature_beta: float = option(0.0, "beta_2 itself; 0 leaves it to curvature_memory", low=0.0, high=0.999999)
    curvature_init: float = option(
        0.0, "h at the start, which gives sigma, too; 0 leaves it to sigma_init, from which h follows", low=0.0
    )
    step_clip: float = option(0.0, "the most that IVON moves a mean in a step, over ivon_lr; 0 is no limit", low=0.0)
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


FIELDS = {f.name: f for f in dataclasses.fields(Options)}
DEFAULTS = {name: f.default for name, f in FIELDS.items()}


class Need(NamedTuple):
    """Values of another option, without one of which an option has no effect."""

    option: str
    values: Collection[str | bool | int]

    def met(self, value: Any) -> bool:
        """Whether the other option has such a value."""
        return value in self.values or (ANY_FOLDER in self.values and str(value).startswith(FOLDER_PREFIX))


_BY_GRADIENT, _BY_IVON = Need("posterior_optimizer", ("sgd",)), Need("posterior_optimizer", ("ivon",))
# Options that have an effect only where all of these are met.
NEEDS: dict[str, tuple[Need, ...]] = {
    "flip": (Need("augment", (True,)),),
    "image_size": (Need("dataset", (ANY_FOLDER,)),),
    "shrink": (Need("dataset", DATASETS),),
    "normalisation": (Need("dataset", ("cifar10",)),),
    "addition_samples": (Need("addition", ("mcK",)),),
    "addition_average": (Need("addition", ("mcK",)),),
    "grow_sigma_value": (Need("grow_sigma", ("constant",)),),
    "exp_lambda": (Need("criterion", WITH_LAMBDA),),
    "lrt_epsilon": (Need("sampling", ("local",)),),
    "mu_init_sd": (Need("mean_init", ("published",)),),
    **dict.fromkeys(("sigma_init", "sigma_init_sd"), (Need("curvature_init", (0,)),)),
    **dict.fromkeys(("sigma_lr", "sigma_optimizer"), (_BY_GRADIENT,)),
    **dict.fromkeys(("ivon_lr", "curvature_beta", "curvature_init", "step_clip"), (_BY_IVON,)),
    "curvature_memory": (_BY_IVON, Need("curvature_beta", (0,))),
}

# Values with which an option needs a parent, and why.
NEEDS_PARENT: dict[str, tuple[str | bool, str]] = {
    "gate_noise": ("batch", "which freezes BatchNorm as it is at the start"),
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


def non_defaults(options: Any) -> dict[str, Any]:
    """The options of a spec that differ from the defaults, in the order of the fields."""
    return {name: v for name, default in DEFAULTS.items() if (v := getattr(options, name)) != default}
