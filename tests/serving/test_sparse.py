"""An exported file: as small as promised, the same predictions, and nothing but data, wherever it comes from."""

import dataclasses
import json
import math
import re
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ssvi
from ssvi.cli import main
from ssvi.core.layers import VariationalLayer, masked_layers
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.serving import sparse
from ssvi.serving.info import describe
from ssvi.training.stored import for_prediction, read_model, save_model


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "network.safetensors"
    sparse.write(run, path)
    return path


def test_a_file_predicts_what_its_run_does_to_the_bit_whatever_the_seed(run, exported, digits) -> None:
    of_run, of_file = ssvi.load(run), ssvi.load(str(exported))
    for asked in ({}, {"samples": 7, "seed": 3}, {"samples": 1}):
        a, b = (one.predict(digits.test_images, **asked) for one in (of_run, of_file))
        assert torch.equal(a.probabilities, b.probabilities)
        assert torch.equal(a.mutual_information, b.mutual_information)
    kept = np.load(run / files.PREDICTIONS)["probabilities"]
    assert (
        of_file.predict(digits.test_images, batch_size=1000).probabilities.float().numpy().tobytes() == kept.tobytes()
    )
    assert of_run.card == of_file.card


def test_sigma_in_bfloat16_is_within_half_a_unit_and_predictions_within_a_thousandth(run, tmp_path, digits) -> None:
    path = tmp_path / "half.safetensors"
    size = sparse.write(run, path, "bfloat16")
    exact, rounded = ssvi.load(run), ssvi.load(path)
    for name, layer in masked_layers(exact.model).items():
        assert isinstance(layer, VariationalLayer)
        other = masked_layers(rounded.model)[name]
        assert torch.equal(layer.mask, other.mask)
        assert torch.equal(layer.mean, other.mean)
        off = ((other.sigma - layer.sigma).abs() / layer.sigma).detach()[layer.mask]
        assert 0 < float(off.max()) <= 2**-8
    a, b = (one.predict(digits.test_images).probabilities for one in (exact, rounded))
    assert not torch.equal(a, b)
    assert float((a - b).abs().max()) < 1e-3
    active = exact.card.metrics["active_weights"]
    assert sparse.write(run, tmp_path / "whole.safetensors") - size == pytest.approx(2 * active, abs=200)


def test_bytes_are_counted_from_the_active_weights(run, exported) -> None:
    header = sparse.read_header(exported)
    layers = sparse.layer_sizes(exported)
    metrics = json.loads((run / files.METRICS).read_text())
    assert sum(one.active for one in layers) == metrics["active_weights"]
    assert sum(one.weights for one in layers) == metrics["maskable_weights"]
    tensors = load_file(exported)
    for one in layers:
        assert tensors[f"{one.name}.mean"].shape == tensors[f"{one.name}.rho"].shape == (one.active,)
        assert tensors[f"{one.name}.mask"].numel() <= math.ceil(one.weights / 8)
    assert header.network == json.loads((run / files.TRAINING).read_text())["files"][files.MODEL]
    # what a run keeps is no larger, but for what is told of it
    assert metrics["file_bytes"] == (run / files.MODEL).stat().st_size
    assert abs(exported.stat().st_size - len(json.dumps(header.card.to_json())) * 1.2 - metrics["file_bytes"]) < 3000


def test_a_run_of_an_earlier_version_is_read_and_said_to_lack_its_classes(run, tmp_path, capsys, data_root) -> None:
    """Its tensors are dense, and it says nothing of its inputs; evaluated anew it does."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    state = read_model(run)
    from ssvi.core.tensors import fingerprint

    tensors = {name: state[name].contiguous() for name in sorted(state)}
    save_file(tensors, old / files.MODEL, {"fingerprint": fingerprint(tensors)})
    spec = json.loads((old / files.SPEC).read_text())
    (old / files.SPEC).write_text(json.dumps(spec | {"format": 2}))
    record = json.loads((old / files.TRAINING).read_text())
    (old / files.TRAINING).write_text(json.dumps({k: v for k, v in record.items() if k not in ("inputs", "files")}))
    (old / files.METRICS).unlink()
    with pytest.raises(UserError, match="was trained by a version that did not record its classes"):
        ssvi.load(old)
    main(["evaluate", str(old), f"--data-root={data_root}", "--device=cpu"])
    a, b = (ssvi.load(one).predict(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).probabilities for one in (run, old))
    assert torch.equal(a, b)


# Files from strangers ------------------------------------------------------------------------------


def parts(path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def spoilt(exported, tmp_path, change):
    """The file with another header; `change` gets it, and what its entry says."""
    header, body = parts(exported)
    told = json.loads(header["__metadata__"]["ssvi"])
    change(header, told)
    header["__metadata__"]["ssvi"] = json.dumps(told)
    head = json.dumps(header).encode()
    path = tmp_path / "spoilt.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)
    return path


def of_card(**changes):
    return lambda header, told: told["card"].update(changes)


def of_spec(**changes):
    return lambda header, told: told["card"]["spec"].update(changes)


def of_inputs(**changes):
    return lambda header, told: told["card"]["inputs"].update(changes)


def of_form(value):
    return lambda header, told: told["forms"].update({"head": value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, t: t.pop("card"), "is no network that `ssvi export` wrote"),
        (lambda h, t: t.update(forms=3), "is no network that `ssvi export` wrote"),
        (of_form([[2**40, 2], "gaps", []]), "is no network that `ssvi export` wrote"),
        (of_card(format=99), "format is 99, but ssvi"),
        (of_card(plugins=["os"]), "needs the plugin 'os', which no file is trusted to load"),
        (of_card(plugins="os"), "plugins of card is 'os'"),
        (of_card(licence=["x"]), "licence of card is"),
        (of_card(samples=0), "samples of card is 0"),
        (of_card(metrics={"accuracy": "<b>"}), "metrics of card is"),
        (of_card(metrics={"<script>": 1}), "metrics of card is"),
        (of_card(provenance={"commit": {}}), "provenance of card is"),
        (of_card(calibration={"images": 3}), "curve of calibration is None"),
        (of_spec(width=100.0), "not the network that its card names"),  # 10,000 times the weights: refused before
        (of_spec(model="resnet9"), "model 'resnet9' is unknown"),
        (of_spec(method="dense"), "not the network that its card names"),
        (of_spec(unknown=1), "option 'unknown' is unknown"),
        (of_spec(seed="0"), "seed is '0', but must be a whole number"),
        (of_inputs(classes=["a"]), "classes of inputs is"),
        (of_inputs(classes=[str(i) for i in range(11)]), "not the network that its card names"),
        (of_inputs(channels=3, mean=[0.0] * 3, std=[1.0] * 3), "not the network that its card names"),
        (of_inputs(channels=2), "channels of inputs is 2"),
        (of_inputs(image_size=10**9), "image_size of inputs is 1000000000"),
        (of_inputs(std=[0.0]), "std of inputs is"),
        (of_inputs(mean=[float("nan")]), "mean of inputs is"),
        (of_form([[10, 17], "gaps", ["mean", "rho"]]), "not the network that its card names"),
        (of_form([[10, 16], "all", ["mean", "rho"]]), "not the network that its card names"),
        (of_form([[10, 16], "gaps", ["mean"]]), "not the network that its card names"),
        (lambda h, t: t["forms"].pop("head"), "not the network that its card names"),
        (lambda h, t: t.update(fingerprint="0"), "its checksum is wrong"),
        (lambda h, t: h.update({"other": h["head.bias"]}), "damaged"),
        (lambda h, t: h["head.mean"].update(dtype="I32"), "not the network that its card names"),
    ],
)
def test_a_header_that_is_not_of_its_network_is_one_line(exported, tmp_path, monkeypatch, change, words) -> None:
    """No network is made for it, and no tensor of it is unpacked, unless its checksum alone is wrong."""
    made = []
    monkeypatch.setattr(sparse, "build", lambda *sizes: made.append(sizes))
    path = spoilt(exported, tmp_path, change)
    with pytest.raises(UserError) as error:
        ssvi.load(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not made


def test_every_cut_and_every_flipped_bit_is_noticed(exported, tmp_path) -> None:
    content, path = exported.read_bytes(), tmp_path / "cut.safetensors"
    generator = np.random.default_rng(0)
    (length,) = struct.unpack("<Q", content[:8])
    for end in [0, 1, 7, 8, 9, length, length + 8, len(content) - 1, *generator.integers(0, len(content), 5)]:
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match=r"cut\.safetensors: "):
            ssvi.load(path)
    # of what lies behind the header
    for place in generator.integers(length + 8, len(content), 20):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(UserError, match="its checksum is wrong"):
            ssvi.load(path)


@pytest.mark.parametrize("shape", [[2**29], [2**36], [2**39, 2**39]])
def test_information_asks_for_no_memory_that_a_header_claims(exported, tmp_path, shape) -> None:
    def empty(header: dict, told: dict) -> None:
        told["forms"]["head"] = [shape, "all", ["mean", "rho"]]
        start = header["head.mask"]["data_offsets"][0]
        header["head.mask"] |= {"shape": [0], "data_offsets": [start, start]}

    with pytest.raises(UserError, match=r"spoilt\.safetensors: "):
        describe(spoilt(exported, tmp_path, empty))


def test_a_file_without_layers_is_one_line(exported, tmp_path) -> None:
    header, _ = parts(exported)
    told = json.loads(header["__metadata__"]["ssvi"]) | {"forms": {}}
    path = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"ssvi": json.dumps(told)})
    with pytest.raises(UserError, match="not the network that its card names"):
        describe(path)


def test_of_a_chain_the_networks_that_predict_are_counted(tmp_path) -> None:
    layer = {"a.mean": torch.ones(4, 5), "a.mask": torch.ones(4, 5, dtype=torch.bool)}
    kept = {f"snapshot.{i}.{name}": value for i in range(2) for name, value in layer.items()}
    save_model(tmp_path, layer | kept)
    found = sparse.layer_sizes(tmp_path / files.MODEL)
    assert [(one.name, one.active) for one in found] == [("snapshot.0.a", 20), ("snapshot.1.a", 20)]
    assert set(for_prediction(read_model(tmp_path))) == set(kept)


def test_a_name_in_a_card_is_only_shown(run, exported, tmp_path, capsys) -> None:
    """Neither Markdown nor a terminal obeys it."""
    from ssvi.runs.card import card_of, read_card
    from ssvi.runs.modelcard import to_text

    name = "<img src=x onerror=alert(1)>[a](javascript:alert(1))\x1b[2J`|\n# x"
    card = read_card(run)
    inputs = dataclasses.replace(card.inputs, classes=(name, *card.inputs.classes[1:]))
    text = to_text(card_of(dataclasses.replace(card, inputs=inputs, licence=name).to_json(), "there"))
    assert not re.search(r"(?<!\\)(<img|\]\(java)", text)
    assert "\x1b" not in text
    assert "\n# x" not in text

    path = spoilt(exported, tmp_path, of_inputs(classes=[name, *card.inputs.classes[1:]]))
    main(["info", str(path)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 10 + len(sparse.layer_sizes(path))
    assert ssvi.load(path).classes[0] == name


# On the command line ------------------------------------------------------------------------------


def test_info_says_what_is_in_a_file_and_in_its_run(run, exported, capsys) -> None:
    main(["info", str(exported), "--json"])
    found = json.loads(capsys.readouterr().out)
    metrics = json.loads((run / files.METRICS).read_text())
    assert found["bytes"] == exported.stat().st_size
    assert found["active"] == metrics["active_weights"]
    assert found["card"]["inputs"] == metrics["inputs"]
    assert found["card"]["metrics"]["accuracy"] == metrics["accuracy"]
    main(["info", str(run), "--json"])
    of_run = json.loads(capsys.readouterr().out)
    assert of_run["layers"] == found["layers"]
    assert of_run["network"] == found["network"]


def test_a_licence_stays_and_an_export_may_have_another(run, tmp_path, capsys, data_root) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(run, mine)
    for flags in (["--licence=MIT"], []):
        main(["evaluate", str(mine), f"--data-root={data_root}", "--device=cpu", *flags])
        assert ssvi.load(mine).card.licence == "MIT"
        assert "- licence: MIT" in (mine / files.MODEL_CARD).read_text()
    capsys.readouterr()
    path = tmp_path / "licensed.safetensors"
    main(["export", str(run), f"--to={path}", "--licence=CC-BY-4.0"])
    assert capsys.readouterr().out == f"{path}: {path.stat().st_size:,} bytes\n"
    assert ssvi.load(path).card.licence == "CC-BY-4.0"
