"""Every check of the doctor in a line, in the order in which they are made. A new one is a function and a line here."""

from __future__ import annotations

from ssvi.doctor.base import Check
from ssvi.registry import KINDS

# Those that train by steps and from nothing, built-in ones.
METHODS = tuple(
    name
    for name, kind in KINDS.items()
    if "epochs" in kind.uses and not kind.needs_parent and name not in KINDS.sources
)
# What is computed needs these.
COMPUTES = ("torch", "gpu.driver")
# What writes for a try needs these.
WRITES = ("results.folder", "results.space")

CHECKS: dict[str, Check] = {
    "python": Check("installation:python"),
    "packages": Check("installation:packages", 20.0),
    "config": Check("study:config", 20.0),
    "machine.cores": Check("machine:cores"),
    "machine.memory": Check("machine:memory"),
    "machine.limits": Check("machine:limits"),
    "results.folder": Check("results:folder"),
    "results.system": Check("results:system"),
    "results.space": Check("results:space", 20.0, needs=("results.folder",)),
    "results.rename": Check("results:rename", needs=WRITES),
    "results.sync": Check("results:sync", needs=WRITES),
    "results.locks": Check("results:locks", needs=WRITES),
    "results.times": Check("results:times", needs=WRITES),
    "results.names": Check("results:names", needs=WRITES),
    "data": Check("data:root"),
    "snakemake": Check("services:snakemake"),
    "mlflow": Check("services:mlflow"),
    "compiler": Check("compiler:compiler", 20.0),
    "compiler.cache": Check("compiler:cache"),
    "torch": Check("installation:torch_imports", 60.0),
    "triton": Check("compiler:triton", 20.0, needs=("torch",)),
    "gpu.driver": Check("gpu:driver", 30.0, needs=("torch",)),
    "gpu.build": Check("gpu:build", 30.0, needs=COMPUTES),
    "gpu.use": Check("gpu:use", 30.0, needs=COMPUTES),
    "gpu.memory": Check("gpu:memory", 30.0, needs=COMPUTES),
    "fp32": Check("training:fp32", 30.0, needs=COMPUTES),
    "bf16": Check("training:bf16", 30.0, needs=COMPUTES),
    "passes.captured": Check("training:captured", 40.0, needs=COMPUTES, alone=True),
    "passes.waits": Check("training:waits", 40.0, needs=COMPUTES, alone=True),
    "resume": Check("training:resume", 60.0, needs=COMPUTES, alone=True),
    "passes.compiled": Check("training:compiled", 90.0, needs=(*COMPUTES, "compiler"), alone=True),
    **{
        f"methods.{name}": Check("training:method", 300.0, needs=COMPUTES, alone=True, thorough=True, of=name)
        for name in METHODS
    },
}
