"""Whether two checkouts of this package compute the same: every method is trained and evaluated with each of them.

    python tests/versions/same_numbers.py OLD NEW [--only NAME] [--json FILE]

OLD and NEW are folders that have `ssvi` in them. Both train the same small runs on this machine, with this Python, on
one thread; then the trained tensors, the masks at each update of the subspace, the history and the metrics are
compared, but for seconds and memory. A line a run: "same", or what differs and by how much. Exit code 1 if anything
differs or was not trained.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What all runs have, where their method uses it. There are 20 steps in an epoch.
SHARED = {
    "dataset": "digits",
    "model": "resnet8",
    "epochs": 2,
    "batch_size": 64,
    "delta_t": 4,
    "lr": 0.1,
    "prior_sigma": 0.05,
    "density": 0.2,
    "seed": 1,
}
SPECS: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense"},
    "dense best epoch": {"method": "dense", "record_best_test": True, "validation": 0.0},
    "vi": {"method": "vi"},
    "vi weight samples": {"method": "vi", "sampling": "weight"},
    "vi adam": {"method": "vi", "sigma_optimizer": "adam", "sigma_lr": 0.01},
    "vi ivon": {"method": "vi", "posterior_optimizer": "ivon", "sampling": "weight", "mean_init": "fan_in"},
    "rigl": {"method": "rigl"},
    "rigl adamw": {"method": "rigl", "optimizer": "adam", "lr": 0.003, "mean_init": "active_fan_in"},
    "rigl global": {"method": "rigl", "allocation": "global"},
    "static": {"method": "static", "allocation": "erk"},
    "ensemble": {"method": "ensemble", "parent": "rigl,lr=0.1,epochs=2,batch_size=64,delta_t=4", "members": 2},
    "vd": {"method": "vd", "parent": "dense,lr=0.1,epochs=2,batch_size=64", "adam_lr": 0.02, "kl_ramp": 0.5},
    "sbp": {"method": "sbp", "parent": "dense,lr=0.1,epochs=2,batch_size=64", "adam_lr": 0.01, "kl_weight": 5},
    "sbp batch noise": {"method": "sbp", "parent": "dense,lr=0.1,epochs=2,batch_size=64", "gate_noise": "batch"},
    "aeb": {"method": "aeb", "parent": "dense,lr=0.1,epochs=2,batch_size=64", "aeb_lr": 0.003},
    "aeb published": {"method": "aeb", "aeb_prior": "published", "aeb_lr": 0.003},
    "mbnn": {"method": "mbnn", "mask_period": 1, "mask_lambda": 0.1},
    "pruned": {"method": "pruned", "parent": "vi,lr=0.1,epochs=2,batch_size=64", "epochs": 0},
    "pruned trained on": {"method": "pruned", "parent": "vi,lr=0.1,epochs=2,batch_size=64", "criterion": "snr"},
    "static_vi": {"method": "static_vi"},
    "ssvi": {"method": "ssvi"},
    "ssvi mlp": {"method": "ssvi", "model": "mlp"},
    "ssvi weight samples": {"method": "ssvi", "sampling": "weight"},
    "ssvi global": {"method": "ssvi", "allocation": "global"},
    "ssvi mean": {"method": "ssvi", "addition": "mean"},
    "ssvi mcK": {"method": "ssvi", "addition": "mcK", "addition_samples": 3},
    "ssvi mcK signed": {"method": "ssvi", "addition": "mcK", "addition_samples": 3, "addition_average": "signed"},
    "ssvi total gradient": {"method": "ssvi", "addition_gradient": "total"},
    "ssvi mean_rho": {"method": "ssvi", "grow_sigma": "mean_rho"},
    "ssvi constant": {"method": "ssvi", "grow_sigma": "constant", "grow_sigma_value": 0.001},
    "ssvi skip": {"method": "ssvi", "update_step": "skip"},
    "ssvi exp": {"method": "ssvi", "parameterisation": "exp", "criterion": "snr_exp", "exp_lambda": 10},
    "ssvi abs": {"method": "ssvi", "parameterisation": "abs", "criterion": "e_abs"},
    "ssvi adam": {"method": "ssvi", "sigma_optimizer": "adam", "sigma_lr": 0.01},
    "ssvi ivon": {"method": "ssvi", "posterior_optimizer": "ivon", "curvature_init": 0.3, "prior_sigma": 0.1},
    "ssvi learned sigma": {"method": "ssvi", "sigma_init": 0.01, "sigma_lr": 10, "kl_warmup": False},
    "ssvi almost dense": {"method": "ssvi", "density": 0.98},
    "ssvi full": {"method": "ssvi", "density": 1},
    "ssvi official": {"method": "ssvi", "preset": "official", "addition": "mcK", "addition_samples": 2},
}
TENSORS = ("model.safetensors", "best.safetensors")
FIGURES = ("topology.jsonl", "history.csv", "metrics.json")
# What may be another each time, and what only says by which version or of which bytes.
NOT_COMPARED = {"images_per_second", "peak_memory_bytes", "sessions", "files", "parents"}
NOT_COMPARED |= {"numerics", "evaluation_numerics"}
TOLD = "told.jsonl"


# Training, with the package of one checkout --------------------------------------------------------


def train(folder: Path, names: list[str]) -> None:
    """Train and evaluate, parents first; a line of `TOLD` says where a run lies, or what went wrong."""
    import ssvi
    from ssvi.registry import KINDS

    with (folder / TOLD).open("w") as told:
        told.write(json.dumps({"package": ssvi.__file__, "methods": list(KINDS)}) + "\n")
        for name in names:
            try:
                said = {"folder": str(train_one(folder, SPECS[name]))}
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                said = {"wrong": (str(error) or type(error).__name__).splitlines()[0]}
            told.write(json.dumps({"name": name} | said) + "\n")
            told.flush()


def train_one(folder: Path, options: dict[str, Any]) -> Path:
    """The folder of a run, which is trained here."""
    from ssvi.cli import main

    names = ("make_spec", "expand", "options_of", "with_parents", "unique", "run_path", "to_flags")
    make_spec, expand, options_of, with_parents, unique, run_path, to_flags = map(of_package, names)
    used = options_of(options["method"])
    spec = make_spec({k: v for k, v in SHARED.items() if k in used} | expand(options))
    machine = ["--threads=1", "--device=cpu", f"--data-root={folder / 'data'}"]
    for one in with_parents(unique([spec])).values():
        main(["train", *to_flags(one), f"--runs={folder}", *machine])
    main(["evaluate", str(folder / run_path(spec)), *machine])
    return folder / run_path(spec)


def of_package(name: str) -> Callable[..., Any]:
    """A function of the package, in whichever module this version of it has that."""
    import ssvi

    root = Path(ssvi.__file__).parent
    (file,) = (file for file in root.rglob("*.py") if f"\ndef {name}(" in file.read_text())
    return getattr(importlib.import_module(".".join(file.relative_to(root.parent).with_suffix("").parts)), name)


def trained(checkout: Path, folder: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """What `train` said of each run, in a process where `ssvi` is that of the checkout.

    Raises:
        SystemExit: if it is another one, or if it has a method of which no run is made here.
    """
    folder.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SSVI_")}
    environment = clean | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), str(folder), "--train", *(f"--only={name}" for name in names)]
    log = folder / "log"
    with log.open("w") as file:
        done = subprocess.run(command, cwd=checkout, env=environment, stdout=file, stderr=subprocess.STDOUT)
    lines = (folder / TOLD).read_text().splitlines() if (folder / TOLD).exists() else []
    if not lines:
        sys.exit(f"{checkout}: {log.read_text(errors='replace').strip()[-2000:]}")
    first, *others = map(json.loads, lines)
    if not Path(first["package"]).resolve().is_relative_to(checkout):
        sys.exit(f"{checkout} was asked for, but {first['package']} was imported.")
    if missing := set(first["methods"]) - {options["method"] for options in SPECS.values()}:
        sys.exit(f"{__file__}: no run of method {', '.join(sorted(missing))} in SPECS.")
    died = {name: {"wrong": f"the process ended with {done.returncode}"} for name in names}
    return died | {said.pop("name"): said for said in others}


# Comparing -----------------------------------------------------------------------------------------


def compare(old: Path, new: Path) -> tuple[dict[str, Any], str]:
    """What differs between two run folders, by file and name; and in words how much was compared."""
    found: dict[str, Any] = {}
    counts = []
    for name in (*TENSORS, *FIGURES):
        there = [(folder / name).exists() for folder in (old, new)]
        if there == [True, True]:
            read = tensors if name in TENSORS else figures
            pair = read(old / name), read(new / name)
            found[name] = dict(tensor_differences(*pair) if name in TENSORS else figure_differences(*pair))
            counts += [f"{len(pair[0])} of {name}"] if pair[0] else []
        elif any(there) or name in ("model.safetensors", "metrics.json"):
            found[name] = {"file": f"old {'has' if there[0] else 'lacks'} it, new {'has' if there[1] else 'lacks'} it"}
    for side, folder in (("old", old), ("new", new)):
        if (status := figures(folder / "metrics.json").get("status")) != "complete":
            found.setdefault("metrics.json", {})[f"status of {side}"] = status
    return {name: problems for name, problems in found.items() if problems}, ", ".join(counts)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, however it stores them; a zero outside a mask has no sign."""
    from ssvi.training.stored import read_model

    found = {name: value.numpy() for name, value in read_model(path.parent, path.name).items()}
    for name, value in found.items():
        mask = found.get(f"{name.rpartition('.')[0]}.mask")
        if mask is not None and mask.shape == value.shape and value.dtype != bool:
            found[name] = np.where(~mask & (value == 0), value.dtype.type(0), value)
    return found


def tensor_differences(
    old: dict[str, np.ndarray], new: dict[str, np.ndarray]
) -> Iterator[tuple[str, str | dict[str, float]]]:
    """Tensors that are not the same bytes: largest differences, or how many entries of a mask differ."""
    for name in [*old, *(new.keys() - old.keys())]:
        if name not in old or name not in new:
            yield name, f"only in {'new' if name in new else 'old'}"
            continue
        a, b = old[name], new[name]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            yield name, f"{a.dtype}{list(a.shape)} in old, {b.dtype}{list(b.shape)} in new"
        elif a.tobytes() != b.tobytes():
            yield name, {"masked otherwise": int((a != b).sum())} if a.dtype == bool else sizes(a, b)


def sizes(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Largest absolute difference, and largest difference relative to the larger number; infinite where one is NaN."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        off = np.where(same, 0.0, np.nan_to_num(np.abs(a - b), nan=math.inf, posinf=math.inf))
        share = np.where(same, 0.0, off / np.maximum(np.abs(a), np.abs(b)))
    share = np.nan_to_num(share, nan=math.inf, posinf=math.inf)
    return {"absolute": float(off.max()), "relative": float(share.max())}


def figures(path: Path) -> dict[str, Any]:
    """The values of a JSON, JSON Lines or CSV file, each by the names and places on the way to it."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        if path.suffix == ".csv":
            content: Any = list(csv.DictReader(file))
        else:
            content = [json.loads(line) for line in file] if path.suffix == ".jsonl" else json.load(file)
    return dict(leaves(content))


def leaves(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Values that are compared, in whatever they are nested."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            if key not in NOT_COMPARED and "seconds" not in str(key):
                yield from leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, content


def figure_differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Values that are not the same to the last digit."""
    for name in [*old, *(new.keys() - old.keys())]:
        a, b = (repr(side[name]) if name in side else "nothing" for side in (old, new))
        if a != b:
            yield name, f"{a} -> {b}"


def words(problems: dict[str, Any]) -> str:
    """What differs, in a line."""
    parts = []
    for name, found in problems.items():
        sized = [p for p in found.values() if isinstance(p, dict) and "absolute" in p]
        masked = sum(p.get("masked otherwise", 0) for p in found.values() if isinstance(p, dict))
        said = [f"{len(found)} differ"]
        if sized:
            largest = (max(p[of] for p in sized) for of in ("absolute", "relative"))
            said.append("by at most {:.2g}, relatively {:.2g}".format(*largest))
        if masked:
            said.append(f"{masked} weights are masked otherwise")
        said += [f"{key}: {text}" for key, text in found.items() if isinstance(text, str)][:2]
        parts.append(f"{name}: {', '.join(said)}")
    return "; ".join(parts)


def main() -> None:
    """Train with both, compare, say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", action="append", choices=SPECS, metavar="NAME", help=f"of {', '.join(SPECS)}")
    parser.add_argument("--json", type=Path, help="write all differences to this file")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.only or list(SPECS)
    if given.train:
        train(given.new, names)
        return
    result: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = {}
        for side in ("old", "new"):
            checkout = getattr(given, side).resolve()
            print(f"{side}: {len(names)} runs are trained with {checkout}", flush=True)
            sides[side] = trained(checkout, place / side, names)
        for name in names:
            wrong = {side: said[name]["wrong"] for side, said in sides.items() if "wrong" in said[name]}
            if wrong:
                problems, compared = {"not trained": wrong}, ""
            else:
                problems, compared = compare(*(Path(said[name]["folder"]) for said in sides.values()))
            result[name] = problems
            print(f"{name:<20} {words(problems) if problems else f'same ({compared})'}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if any(result.values()) else 0)


if __name__ == "__main__":
    main()
