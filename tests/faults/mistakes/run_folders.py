"""Mistakes in checkpoints and in what a run folder holds."""

from __future__ import annotations

import pickle
from functools import partial

import torch
from spoiling import (
    Trap,
    change,
    flipped,
    framed,
    half,
    make_folder,
    record,
    remove,
    saved,
    state_of,
    tensors,
    unreadable,
    with_seed,
    write,
)

from mistakes.kinds import (
    ANEW,
    CHILD,
    EVALUATE,
    GO_ON,
    JSON,
    MISFIT,
    MODEL,
    NEWER,
    NONE,
    NOT_REPLACED,
    OTHER_LIVE,
    PARENT,
    TRAIN,
    UNREADABLE,
    VERSION,
    WHERE,
    WRONG,
    Bad,
    checkpoint_row,
    no_checkpoint,
    other,
    run_row,
)
from ssvi.runs import files
from ssvi.runs.runfolder import FORMAT
from ssvi.training import checkpoint

CHECKPOINTS = [
    checkpoint_row("half a checkpoint", no_checkpoint(WRONG), half),
    checkpoint_row("an empty checkpoint", no_checkpoint(NONE), lambda content: b""),
    checkpoint_row("a flipped bit in a checkpoint", no_checkpoint(WRONG), flipped),
    checkpoint_row("something behind a checkpoint", no_checkpoint(WRONG), lambda content: content + b"x"),
    checkpoint_row("something else", no_checkpoint(NONE), lambda content: b"hello"),
    checkpoint_row("a pickle with a program", no_checkpoint(NONE), lambda content: pickle.dumps(Trap())),
    checkpoint_row("a file of torch.save", no_checkpoint(NONE), state_of),
    checkpoint_row(
        "a program with a right checksum",
        UNREADABLE,
        lambda content: framed(pickle.dumps(Trap())),
    ),
    checkpoint_row(
        "torch's own with a program",
        UNREADABLE,
        lambda content: framed(saved(Trap())),
    ),
    checkpoint_row(
        "a checkpoint of another version",
        f"cut/live/checkpoint.pt: a checkpoint of version 2, but this is version {checkpoint.VERSION}; {OTHER_LIVE}",
        lambda content: framed(state_of(content), 2),
    ),
    checkpoint_row(
        "a checkpoint of something else",
        f"cut/live/checkpoint.pt: not a checkpoint of a training; {OTHER_LIVE}",
        lambda content: framed(saved({"a": 1})),
    ),
    checkpoint_row(
        "a checkpoint of another spec",
        f"cut/live/checkpoint.pt: {other('seed', 5, 0)}",
        partial(with_seed, seed=5),
    ),
    Bad(
        "a folder for a checkpoint",
        GO_ON,
        f"cut/{files.CHECKPOINT}: {NOT_REPLACED}",
        make_folder(f"cut/{files.CHECKPOINT}"),
    ),
    Bad(
        "an interrupted run of another spec",
        f"{GO_ON} --seed=1",
        f"cut/spec.json: {other('seed', 0, 1)}",
    ),
]

PLUGINS = b'"plugins": [{"module": "mine", "version": null, "files": {}}]'

ARTIFACTS = [
    run_row("no spec", "spec.json: no such file.", remove("run/spec.json")),
    run_row("an empty spec", f"spec.json: {JSON} (...); {ANEW}", write("run/spec.json", "")),
    run_row("half a spec", f"spec.json: {JSON} (...); {ANEW}", change("run/spec.json", half)),
    run_row(
        "a key twice in a spec",
        f"spec.json: {JSON} ('lr' is there twice); {ANEW}",
        write("run/spec.json", '{"spec": {"lr": 0.1, "lr": 0.2}}'),
    ),
    run_row(
        "a key twice in the record of the training",
        f"training.json: {JSON} ('status' is there twice); {ANEW}",
        change("run/training.json", lambda content: content.replace(b"{", b'{"status": "complete",', 1)),
    ),
    run_row(
        "a plugin that is not here",
        "spec.json: provenance.plugins: plugin 'mine': no module 'mine' is installed, nor in the current folder, HERE.",
        change("run/spec.json", lambda content: content.replace(b'"plugins": []', PLUGINS)),
    ),
    run_row(
        "a plugin without a module",
        f"spec.json: provenance.plugins has ..., but must have modules and their files' hashes; {VERSION}",
        change("run/spec.json", lambda content: content.replace(b'"plugins": []', b'"plugins": [{"files": {}}]')),
    ),
    run_row("a spec of bytes", f"spec.json: not readable as text (...); {ANEW}", write("run/spec.json", b"\xff\0")),
    run_row("a folder for a spec", "spec.json: Is a directory", make_folder("run/spec.json")),
    run_row("a spec nobody may read", "spec.json: Permission denied", unreadable("run/spec.json")),
    run_row("a spec that is a list", f"spec.json: has no 'spec'; {VERSION}", write("run/spec.json", "[]")),
    run_row(
        "a spec in 9000 brackets",
        f"spec.json: {JSON} (maximum recursion depth...); {ANEW}",
        write("run/spec.json", "[" * 9000),
    ),
    run_row(
        "a spec that is a number",
        f"spec.json: spec is 3, but must be an object; {VERSION}",
        record("run/spec.json", spec=3),
    ),
    run_row(
        "an unknown option in a spec",
        "spec.json: option 'learning' is unknown... Choose from ...",
        record("run/spec.json", spec__learning=1),
    ),
    run_row(
        "a word for a number in a spec",
        "spec.json: lr is 'fast', but must be a number.",
        record("run/spec.json", spec__lr="fast"),
    ),
    Bad(
        "nothing for a method in a spec",
        f"ssvi samples run {WHERE}",
        "run/spec.json: method is None, but must be a word.",
        record("run/spec.json", spec__method=None),
    ),
    run_row(
        "NaN in a spec",
        f"spec.json: {JSON} (NaN is no number of JSON); {ANEW}",
        write("run/spec.json", '{"spec": {"lr": NaN}}'),
    ),
    run_row(
        "a bad parent in a spec",
        "spec.json: run spec: parent is 'vi,lr', but must be a method and options, as in vi,epochs=12.",
        record("run/spec.json", spec__method="vd", spec__parent="vi,lr"),
    ),
    run_row(
        "a spec without images",
        f"spec.json: provenance.data is None, but must be a word; {VERSION}",
        record("run/spec.json", provenance__data=...),
    ),
    Bad(
        "a spec with other images",
        EVALUATE,
        "run: was trained on other training images of 'digits' (fingerprint 000000000000, now ...); evaluate it on "
        "those, or move the folder away to train on the present ones.",
        record("run/spec.json", provenance__training_data="0" * 64),
    ),
    Bad(
        "an older spec with other images",
        EVALUATE,
        "run: was trained on other images of 'digits' (fingerprint 000000000000, now ...); evaluate it on those, or "
        "move the folder away to train on the present ones.",
        record("run/spec.json", provenance__data="0" * 64, provenance__training_data=...),
    ),
    run_row(
        "training images that are a number",
        f"spec.json: provenance.training_data is 3, but must be a word; {VERSION}",
        record("run/spec.json", provenance__training_data=3),
    ),
    run_row(
        "a spec whose origin is a list",
        f"spec.json: provenance is [], but must be an object; {VERSION}",
        record("run/spec.json", provenance=[]),
    ),
    run_row("a run of a newer version", f"spec.json: {NEWER}", record("run/spec.json", format=FORMAT + 1)),
    run_row(
        "a run whose format is no number",
        f"spec.json: format is True, but must be a whole number >= 1; {VERSION}",
        record("run/spec.json", format=True),
    ),
    Bad(
        "a run of a newer version that is to be trained",
        f"{TRAIN} --out=run",
        f"run/spec.json: {NEWER}",
        record("run/spec.json", format=FORMAT + 1),
    ),
    Bad(
        "a parent of a newer version",
        CHILD,
        f"{PARENT}/spec.json: {NEWER}",
        record(f"{PARENT}/spec.json", format=FORMAT + 1),
    ),
    Bad(
        "a spec of another run",
        f"{TRAIN} --seed=1 --out=run",
        f"run/spec.json: {other('seed', 0, 1)}",
    ),
    run_row("no record of the training", "training.json: no such file.", remove("run/training.json")),
    run_row("half a record of the training", f"training.json: {JSON} (...); {ANEW}", change("run/training.json", half)),
    run_row(
        "a training without status",
        f"training.json: has no 'status'; {VERSION}",
        record("run/training.json", status=...),
    ),
    run_row(
        "a training with an odd status",
        f"training.json: status is 'great', but must be complete or diverged; {VERSION}",
        record("run/training.json", status="great"),
    ),
    Bad(
        "a training of other layers",
        f"ssvi samples run {WHERE}",
        f"run/training.json: positions are not those of the network in spec.json; {VERSION}",
        record("run/training.json", positions={}),
    ),
    run_row("no model", "model.safetensors: no such file; train the run first.", remove("run/model.safetensors")),
    run_row(
        "half a model", f"model.safetensors: truncated or damaged (...); {ANEW}", change("run/model.safetensors", half)
    ),
    run_row(
        "a flipped bit in a model",
        f"model.safetensors: damaged (its checksum is wrong); {ANEW}",
        change("run/model.safetensors", flipped),
    ),
    run_row(
        "an empty model", f"model.safetensors: truncated or damaged (...); {ANEW}", write("run/model.safetensors", "")
    ),
    run_row(
        "a program for a model",
        f"model.safetensors: truncated or damaged (...); {ANEW}",
        write("run/model.safetensors", pickle.dumps(Trap())),
    ),
    run_row("a folder for a model", "model.safetensors: Is a directory", make_folder("run/model.safetensors")),
    Bad("a model of another network", EVALUATE, f"{MODEL}: {MISFIT}", record("run/spec.json", spec__model="resnet8")),
    Bad("a model of another size", EVALUATE, f"{MODEL}: {MISFIT}", record("run/spec.json", spec__width=0.5)),
    Bad("a model of another method", EVALUATE, f"{MODEL}: {MISFIT}", record("run/spec.json", spec__method="mbnn")),
    Bad(
        "a model without a tensor",
        EVALUATE,
        f"{MODEL}: {MISFIT}",
        tensors("run", lambda t: {k: t[k] for k in sorted(t)[1:]}),
    ),
    Bad(
        "a model with a tensor more",
        EVALUATE,
        f"{MODEL}: {MISFIT}",
        tensors("run", lambda t: {**t, "more": torch.zeros(2)}),
    ),
    Bad(
        "a model of whole numbers",
        EVALUATE,
        f"{MODEL}: {MISFIT.replace('...', '... is of type torch.int64 instead of torch.float32', 1)}",
        tensors("run", lambda t: {k: v.long() if v.is_floating_point() else v for k, v in t.items()}),
    ),
    run_row("a folder for the predictions", f"predictions.npz: {NOT_REPLACED}", make_folder("run/predictions.npz")),
    Bad(
        "a parent without a model",
        CHILD,
        f"{PARENT}: the parent of this run is not trained; train it first.",
        remove(f"{PARENT}/model.safetensors"),
    ),
    Bad(
        "half a parent",
        CHILD,
        f"{PARENT}/model.safetensors: truncated or damaged (...); {ANEW}",
        change(f"{PARENT}/model.safetensors", half),
    ),
    Bad(
        "a parent without its weights",
        CHILD,
        f"{PARENT}/model.safetensors: {MISFIT}",
        tensors(PARENT, lambda t: {"more": torch.zeros(2)}),
    ),
    Bad(
        "a parent of no numbers",
        CHILD,
        f"{PARENT}/model.safetensors: head.bias has numbers that are not finite; {ANEW}",
        tensors(PARENT, lambda t: {**t, "head.bias": t["head.bias"] * torch.nan}),
    ),
    Bad(
        "a parent whose costs are words",
        CHILD,
        f"{PARENT}/training.json: training_flops is 'many', but must be a number; {VERSION}",
        record(f"{PARENT}/training.json", training_flops="many"),
    ),
    Bad(
        "a parent of another spec",
        CHILD,
        f"{PARENT}/spec.json: {other('lr', 0.5, 0.01)}",
        record(f"{PARENT}/spec.json", spec__lr=0.5),
    ),
]
