"""Nothing runs that came from a file, nothing is read from outside a folder, no command is built from a name."""

from __future__ import annotations

import ast
import io
import os
import pickle
import random
import re
import shutil
import string
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from images import make_image_folder
from PIL import Image
from spoiling import Trap, encoded, framed, png, saved
from studies import ROOT, command, config_of, environment, write_config

from ssvi.cli import main
from ssvi.data import prepare
from ssvi.errors import UserError
from ssvi.runs import config
from ssvi.runs.configfile import schema
from ssvi.runs.loader import Loader
from ssvi.runs.runfolder import read_spec
from ssvi.runs.spec import RunSpec, make_spec

CODE = sorted(path for folder in ("ssvi", "workflow/scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]

# ---------------------------------------------------------------- what the code may not do

# Whatever is read by these may run what is in it; or it goes to a shell, or to the network.
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.hub.load", "torch.hub.download_url_to_file"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "eval", "exec", "__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
    *("urllib.request.urlopen", "urllib.request.urlretrieve"),
}
METHODS = {"extract", "extractall", "unpack_archive", "extract_archive", "read_pickle"}
IMPORTS = {*("dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile", "zipfile"), *("requests", "ftplib")}
# Calls that are safe with this argument, and only with it.
ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
}
# The places that are known: a loader that is stricter than yaml.SafeLoader, an archive whose checksum was verified, and
# the version of the user's own MLflow server, of which 200 bytes are read and matched, and what is wrong with a file of
# predictions, which is read without pickles once its sizes are known to be those of the file.
KNOWN = {
    ("ssvi/runs/arrays.py", "zipfile"),
    ("ssvi/runs/configfile.py", "yaml.load"),
    ("ssvi/data/sources.py", "utils.extract_archive"),
    ("ssvi/doctor/services.py", "urllib.request.urlopen"),
}


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The full name of what is called, as far as it is one: `np.load` is numpy.load."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return ""


def dangers(text: str) -> Iterator[str]:
    """What a program does that it may not."""
    tree = ast.parse(text)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
                if first in IMPORTS:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            if (node.module or "").split(".")[0] in IMPORTS:
                yield str(node.module)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, names)
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        if name in FORBIDDEN or name.rpartition(".")[2] in METHODS:
            yield name
        if name in ONLY_WITH and given.get(ONLY_WITH[name][0]) is not ONLY_WITH[name][1]:
            yield name
        if name.startswith("subprocess.") and given.get("shell", False) is not False:
            yield "shell=True"


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(data)",
        "import torch\ntorch.load(file)",
        "import torch\ntorch.load(file, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "from tempfile import mktemp\nmktemp()",
        "import tarfile",
        "archive.extractall(folder)",
        "import shutil\nshutil.unpack_archive(path)",
        "from urllib.request import urlopen\nurlopen(address)",
        "import joblib",
    ],
)
def test_what_may_not_be_is_noticed(bad: str) -> None:
    assert list(dangers(bad))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_runs_what_it_reads(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    assert {(place, name) for name in dangers(path.read_text())} <= KNOWN


def test_the_known_places_are_there_and_safe() -> None:
    found = {(str(p.relative_to(ROOT)), name) for p in CODE for name in dangers(p.read_text())}
    assert found == KNOWN
    assert issubclass(Loader, yaml.SafeLoader)
    assert Loader.yaml_constructors.keys() == yaml.SafeLoader.yaml_constructors.keys()


@pytest.mark.parametrize("path", [*CODE, *RULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_address_but_that_of_this_machine(path: Path) -> None:
    """What is fetched is CIFAR, by torchvision, with `--download`."""
    hosts = set(re.findall(r"https?://(\w[\w.-]*)", path.read_text()))
    assert hosts <= {"127.0.0.1", "localhost", "www.w3.org"}


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_run_no_code_from_files_either(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(eval|exec|pickle|os\.system|os\.popen|shell=True|yaml\.load|mktemp|extractall)\b", text)
    assert not re.search(r"^ +run:$", text, re.M)


# ---------------------------------------------------------------- files with a program in them


TRAPS = {
    "pickle": pickle.dumps(Trap()),
    "an old pickle": pickle.dumps(Trap(), 0),
    "torch.save": saved(Trap()),
    "in a list": saved([1, {"a": Trap()}]),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    main([*TRAIN, f"--out={folder / 'run'}", f"--data-root={folder / 'data'}", "--checkpoint-seconds=0"])
    return folder


TRAIN = ["train", "--model=mlp", "--width=0.1", "--epochs=1", "--batch-size=256", "--device=cpu", "--threads=1"]
EVALUATE = ["evaluate", "run", "--device=cpu", "--threads=1"]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_would_be_sprung(tmp_path, monkeypatch, trap: str) -> None:
    monkeypatch.chdir(tmp_path)
    read = pickle.load if "pickle" in trap else partial(torch.load, weights_only=False)
    read(io.BytesIO(TRAPS[trap]))
    assert Path("evil").exists()


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("run/live/checkpoint.pt", [*TRAIN, "--out=run"]),
        ("run/model.safetensors", EVALUATE),
        ("run/spec.json", EVALUATE),
        ("run/training.json", EVALUATE),
        ("data/cache/digits-v3.safetensors", EVALUATE),
    ],
)
@pytest.mark.parametrize("checksummed", [False, True])
def test_no_trap_is_sprung(trained, tmp_path, monkeypatch, trap, name, command, checksummed) -> None:
    """Wherever it lies, even as a checkpoint with a right checksum."""
    content = TRAPS[trap]
    if checksummed:
        content = framed(content)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if command[0] == "train":
        Path("run/training.json").unlink()
        Path("run/live/checkpoint.previous.pt").unlink()
    Path(name).write_bytes(content)
    if name.startswith("data/"):
        main(command)  # which makes it anew
    else:
        with pytest.raises(SystemExit, match=f"^ssvi: {name}: "):
            main(command)
    assert not Path("evil").exists()


# ---------------------------------------------------------------- archives


def hostile_archive(path: Path) -> None:
    """An archive with files that lead out of the folder, links among them, and a pickle that is a trap."""
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../../evil", str(path.parent / "evil"), "cifar-10-batches-py/data_batch_1"):
            member = tarfile.TarInfo(name)
            member.size = len(TRAPS["pickle"])
            archive.addfile(member, io.BytesIO(TRAPS["pickle"]))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo("cifar-10-batches-py/out")
            member.type, member.linkname = kind, "../../../outside"
            archive.addfile(member)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_an_archive_with_another_checksum_is_not_even_opened(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "a/b/data"
    root.mkdir(parents=True)
    hostile_archive(root / "cifar-10-python.tar.gz")
    before = everything(tmp_path)
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: its checksum is wrong") as caught:
        prepare("cifar10", root)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("damage", ["all traps", "one trap", "links"])
def test_a_folder_like_cifar_is_not_unpickled(tmp_path, monkeypatch, damage: str) -> None:
    """Every file's checksum comes first, also of those that are read last."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]
    for name in names if damage != "one trap" else names[:1]:
        if damage == "links":
            (tmp_path / "trap").write_bytes(TRAPS["pickle"])
            (folder / name).symlink_to(tmp_path / "trap")
        else:
            (folder / name).write_bytes(TRAPS["pickle"])
    before = everything(tmp_path)
    with pytest.raises(UserError, match="a file is missing or its checksum is wrong"):
        prepare("cifar10", tmp_path / "data")
    assert everything(tmp_path) == before


# ---------------------------------------------------------------- images


def at(content: bytes, place: int, value: bytes) -> bytes:
    assert 0 <= place < len(content)
    return content[:place] + value + content[place + len(value) :]


def large_tiff(side: int) -> bytes:
    """Width and height are entries of a table."""
    content = encoded("TIFF")
    (table,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[table : table + 2])
    for i in range(entries):
        entry = table + 2 + 12 * i
        (tag,) = struct.unpack("<H", content[entry : entry + 2])
        if tag in (256, 257):
            content = at(content, entry, struct.pack("<HHII", tag, 4, 1, side))
    return content


def bombs() -> dict[str, bytes]:
    """A few bytes, or kilobytes, that want gigabytes."""
    jpeg, gif, bmp, webp = encoded("JPEG"), encoded("GIF"), encoded("BMP"), encoded("WEBP")
    zeros = zlib.compress(bytes(400_000_000), 1)
    text = b"zTXtk\0\0" + zeros
    texts = [b"zTXtk%d\0\0" % i + zlib.compress(bytes(1_000_000)) for i in range(300)]
    large = struct.pack("<HH", 65535, 65535)
    frame = gif.index(b"\x2c", 13 + 3 * 256)  # behind the head and the colours
    return {
        "a.png": png(2**31 - 1, 2**31 - 1, b""),
        "b.png": png(80_000_000, 1, bytes(80_000_001)),
        "c.png": png(1, 80_000_000, bytes(160_000_000)),
        "d.png": png(8, 8, bytes(72), text),
        "e.png": png(8, 8, bytes(72), b"iCCPk\0\0" + zeros),
        "f.png": png(8, 8, bytes(72), *texts),
        "g.jpg": at(jpeg, jpeg.index(b"\xff\xc0") + 5, struct.pack(">HH", 65500, 65500)),
        "h.gif": at(at(gif, 6, large), frame + 5, large),
        "i.gif": at(gif, frame + 5, large),
        "j.bmp": at(bmp, 18, struct.pack("<ii", 100_000, 100_000)),
        "k.bmp": at(bmp, 18, struct.pack("<ii", 64, -(2**31))),
        "l.webp": at(webp, webp.index(b"\x9d\x01\x2a") + 3, struct.pack("<HH", 16383, 16383)),
        "m.tif": large_tiff(1_000_000),
        "n.tif": large_tiff(2**32 - 1),
        "o.png": b"P6 60000 60000 255\n",
    }


# Decodes the files it is given with little more memory than it has at the start, and says what came out.
DECODE = """
import resource, sys
from pathlib import Path
from ssvi.data.pixels import decode
from ssvi.errors import UserError
import numpy, PIL.Image
PIL.Image.init()
have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (have + 500_000_000, have + 500_000_000))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for name in sys.argv[1:]:
    try:
        print(tuple(decode(Path(name), 8).pixels.shape))
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells a process its memory only on Linux")
def test_bombs_are_refused_in_a_line_each_with_little_memory(tmp_path) -> None:
    made = bombs()
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", DECODE, *made]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(made)
    for name, line in zip(made, lines, strict=True):
        assert re.match(rf"{name}: (has more than|is \d+ pixels across|cannot be read as an image \()", line), line


def test_many_frames_cost_no_more_than_the_first(tmp_path) -> None:
    """Of an animation the first frame is read, whatever the others are; what comes behind it is not looked at."""
    noise = [Image.frombytes("RGB", (8, 8), random.Random(i).randbytes(192)) for i in range(3)]
    folder = make_image_folder(tmp_path / "pets", classes=2, train=2, test=1, size=(8, 8))
    for suffix, format in ((".gif", "GIF"), (".tif", "TIFF"), (".png", "PNG"), (".webp", "WEBP")):
        buffer = io.BytesIO()
        noise[0].save(buffer, format, save_all=True, append_images=noise[1:] * 300)
        (folder / f"train/class0/many{suffix}").write_bytes(buffer.getvalue())
    assert len(prepare(f"folder:{folder}", tmp_path, 8).train_images) == 2 * 2 + 4


def test_no_other_program_reads_an_image(tmp_path, monkeypatch) -> None:
    """PIL would hand PostScript to Ghostscript, whatever the file is called."""
    folder = make_image_folder(tmp_path / "pets", classes=2, train=2, test=1, size=(8, 8))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(evil) (w) file\n%%EOF\n"
    (folder / "train/class0/000.png").write_bytes(postscript)
    stub = tmp_path / "bin/gs"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\ntouch {tmp_path}/evil\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UserError, match="cannot be read as an image"):
        prepare(f"folder:{folder}", tmp_path, 8)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "place", ["test", "train/class0", "train/class0/000.png", "train/more", "train/class0/more.png"]
)
@pytest.mark.parametrize("target", ["outside", "/dev/zero", "/etc", "itself", "nothing"])
def test_a_link_leads_nowhere_else(tmp_path, place: str, target: str) -> None:
    folder = make_image_folder(tmp_path / "pets", classes=2, train=2, test=1, size=(8, 8))
    outside = make_image_folder(tmp_path / "outside", classes=2, train=2, test=1, size=(8, 8))
    path = folder / place
    if path.exists():
        path.rename(tmp_path / "old")
    to = {"outside": outside / "train/class0", "itself": path.name, "nothing": "none"}.get(target, target)
    path.symlink_to(to)
    with pytest.raises(UserError, match=r"is a link to .* (outside|not there)|has no folder test/") as caught:
        prepare(f"folder:{folder}", tmp_path / "data", 8)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_folder_may_itself_be_reached_by_a_link(tmp_path) -> None:
    folder = make_image_folder(tmp_path / "pets", classes=2, train=2, test=1, size=(8, 8))
    (tmp_path / "also").symlink_to(folder)
    (folder / "train/class0/also.png").symlink_to("000.png")
    assert len(prepare(f"folder:{tmp_path / 'also'}", tmp_path, 8).train_images) == 5


# ---------------------------------------------------------------- names and shells

CONFIG = config_of("tiny", {"experiments": {"vi": {"method": "vi", "epochs": 1}}})
IN_FOLDERS = [*";&|<>$`\"'\\*?(){}[]!", "\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\ud800"]
IN_PATHS = [c for c in IN_FOLDERS if c not in "()[]!"]
FINE = [*string.ascii_letters, *string.digits, *" ._-/~+=@,:%#^", "ü", "é", "ß", "ж", "日", "ى", "ि", "u\u0308", "🙂"]


@pytest.mark.parametrize("key", ["results", "reports", "data_root"])
def test_a_folder_in_the_config_has_no_character_of_a_shell(key: str) -> None:
    for character in IN_FOLDERS:
        with pytest.raises(UserError) as caught:
            config.check_config({**CONFIG, key: f"a{character}b"}, "config.yaml")
        message = str(caught.value)
        assert message.startswith(f"config.yaml: {key}: ")
        assert "is not allowed: a folder, without ; & |" in message
        assert len(message.splitlines()) == 1
    for name in ("", "-rf", "a\n"):
        with pytest.raises(UserError, match=f"{key}: .*is not allowed"):
            config.check_config({**CONFIG, key: name}, "config.yaml")
    config.check_config({**CONFIG, key: f"a{''.join(FINE)}b"}, "config.yaml")


def test_a_data_sets_path_has_no_character_of_a_shell() -> None:
    for character in IN_PATHS:
        with pytest.raises(UserError) as caught:
            make_spec({"dataset": f"folder:a{character}b"}, "config.yaml: studies.tiny.train")
        message = str(caught.value)
        assert message.startswith("config.yaml: studies.tiny.train: dataset is ")
        assert f"must not contain {character!r}" in message
        assert len(message.splitlines()) == 1
    name = f"folder:a{''.join(FINE)}()[]!b"
    assert make_spec({"dataset": name}).dataset == RunSpec(dataset=name).dataset == name


@pytest.mark.parametrize(
    "name", ["a; rm -rf b", "$(reboot)", "a b", "../a", "a/b", "", "1a", "-a", "a\n", "ä", "a{b}", "`a`"]
)
@pytest.mark.parametrize("kind", ["studies", "experiments", "tables", "figures"])
def test_names_are_names(kind: str, name: str) -> None:
    tiny: dict[str, Any] = {"experiments": {"vi": {"method": "vi", "epochs": 1}}}
    studies: dict[str, Any] = {"tiny": tiny}
    if kind == "studies":
        studies[name] = {"like": "tiny"}
    else:
        tiny[kind] = {**tiny.get(kind, {}), name: {"method": "vi"} if kind == "experiments" else ["vi"]}
    with pytest.raises(UserError, match="is no name: letters, digits, '_' and '-', a letter first"):
        config.check_config({**CONFIG, "studies": studies}, "config.yaml")


def shells(text: str) -> list[str]:
    """The commands of a rule file."""
    return ["".join(re.findall(r'"(.*)"', block)) for block in re.findall(r'^ +shell:\n((?: +".*"\n)+)', text, re.M)]


def test_every_value_in_a_command_is_quoted_or_a_number() -> None:
    rules, common = (ROOT / "workflow/rules/train.smk").read_text(), (ROOT / "workflow/rules/common.smk").read_text()
    commands = [command for path in RULES for command in shells(path.read_text())]
    assert len(commands) == sum(path.read_text().count("shell:") for path in RULES) == 5
    numbers = {"threads", "params.samples", "params.bins"}
    for line in commands:
        fields = re.findall(r"\{([^{}]*)\}", line)
        assert fields
        quoted = numbers | {"params.flags", "params.ssvi", "params.licence", "params.outside"}
        assert all(field.endswith(":q") or field in quoted for field in fields), line
        assert "{{" not in line
    # the command and its flags are joined by shlex, word by word
    assert set(re.findall(r"ssvi=(\w+)", rules)) == {"SSVI"}
    assert set(re.findall(r"flags=(\w+)", rules)) == {"run_flags", "data_flags"}
    assert set(re.findall(r"licence=(\w+)", rules)) == {"licence_flag"}
    assert set(re.findall(r"outside=(\w+)", rules)) == {"outside_flags"}
    for function in ("run_flags", "data_flags", "licence_flag", "outside_flags"):
        body = re.search(rf"def {function}\(.*?\n(?=\n\n)", common, re.S)[0]
        assert re.findall(r"return (\S+?)\(", body) == ["shlex.join"]
    assert re.search(r"^SSVI = \(\n    \"ssvi\"\n    if .*\n    else shlex\.join\(.*\)\n\)$", common, re.M)
    # and numbers are whole numbers
    assert set(re.findall(r"(?:samples|bins)=(\S+)", rules)) == {
        'CONFIG["evaluation"]["samples"],',
        'most_samples(CONFIG["evaluation"]),',
        'CONFIG["evaluation"]["bins"],',
    }
    for name in ("samples", "bins", "most_samples"):
        definition = schema()["properties"]["evaluation"]["properties"][name]
        assert schema()["$defs"][definition["$ref"].rpartition("/")[2]]["type"] == "integer"


@pytest.mark.parametrize("samples", [5.0, True, "5; reboot", [5]])
def test_a_number_is_a_number(samples: object) -> None:
    with pytest.raises(UserError, match=r"evaluation\.samples: .* is not allowed: a whole number"):
        config.check_config({**CONFIG, "evaluation": {"samples": samples, "bins": 15}}, "config.yaml")


def test_the_oddest_names_go_from_the_images_to_the_report(tmp_path) -> None:
    """Everything that may be in a name; and nothing is made outside the folders named so."""
    images = "Bilder (ä) [1]! #%20,=@~/日本 語"
    odd = {
        "results": "Ergebnisse ü/100% a=b,c@d+e:f~g #1^2",
        "reports": "my reports ñ %20",
        "data_root": "Daten für + alles",
    }
    train = {"dataset": f"folder:{images}", "image_size": 8, "model": "mlp", "width": 0.1, "epochs": 1, "batch_size": 6}
    tiny = {"train": train, "experiments": {"ssvi": {"method": "ssvi", "delta_t": 1}}, "tables": {"summary": ["ssvi"]}}
    write_config(tmp_path, config_of("tiny", tiny, **odd))
    make_image_folder(tmp_path / images, classes=2, train=6, test=2, size=(8, 8))
    before = {path.name for path in tmp_path.iterdir()}
    done = subprocess.run(
        command(tmp_path, "--", "report"), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    made = {Path(name).parts[0] for name in odd.values()}
    assert {path.name for path in tmp_path.iterdir()} == before | made | {".snakemake"}
    (metrics,) = (tmp_path / odd["results"]).rglob("metrics.json")
    assert read_spec(metrics.parent).dataset == f"folder:{images}"
    assert (tmp_path / odd["reports"] / "tiny/report.html").exists()
