"""Short trainings of methods, and of the parents that they need."""

from pathlib import Path

import torch

from ssvi.data import Data
from ssvi.runs import files
from ssvi.runs.options import options_of
from ssvi.runs.parents import parents_of, with_parents
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer

CPU = torch.device("cpu")
TINY = {"dataset": "digits", "model": "resnet8", "width": 0.25}
# Two epochs of six steps, with settings that prune something in so few.
SHORT = {"epochs": 2, "batch_size": 256}
CASES: dict[str, dict] = {
    "static": {"density": 0.3, **SHORT},
    "static_vi": {"density": 0.3, **SHORT},
    "pruned": {"density": 0.3, "parent": "vi,epochs=2,batch_size=256", **SHORT},
    "ensemble": {"density": 0.6, "members": 2, "parent": "static,epochs=1,batch_size=256"},
    "vd": {"adam_lr": 0.02, "kl_weight": 30.0, "kl_ramp": 0.0, "log_variance_init": -6.0, **SHORT},
    "sbp": {"adam_lr": 0.05, "kl_weight": 30.0, "parent": "dense,epochs=2,batch_size=256,lr=0.1", **SHORT},
    "aeb": {"density": 0.4, "aeb_prior": "published", **SHORT},
    "mbnn": {"mask_lambda": 0.14, "mask_period": 1, "epochs": 5, "batch_size": 256},
}


def spec_of(method: str, **options) -> RunSpec:
    given = {**TINY, **CASES.get(method, SHORT), "method": method, **options}
    return make_spec({k: v for k, v in given.items() if k in options_of(method)})


def train(spec: RunSpec, digits: Data, results: Path, folder: Path, reporter=None, every: float = 1e9) -> Trainer:
    for parent in with_parents({run_path(spec): spec}):
        if parent != run_path(spec) and not files.is_trained(results / parent):
            train(runs_spec(parent, spec), digits, results, results / parent)
    lineage = [results / run_path(p) for p in parents_of(spec)]
    trainer = Trainer(spec, digits, folder, Settings(Machine(CPU), every), reporter or Lines(), lineage)
    trainer.run()
    return trainer


def runs_spec(path: str, child: RunSpec) -> RunSpec:
    return with_parents({run_path(child): child})[path]
