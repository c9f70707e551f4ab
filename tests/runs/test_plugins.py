"""Own criteria, addition rules, networks and methods from outside the package: docs/plugins.md, and what is refused."""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import DOCS, commands, write_files
from studies import BIN, ROOT, command, config_of, environment, write_config

from ssvi.errors import UserError
from ssvi.registry import ADDITIONS, CRITERIA, MODELS
from ssvi.runs import files, plugins
from ssvi.runs.records import read_jsonl
from ssvi.runs.runfolder import read_spec, spec_record
from ssvi.runs.spec import RunSpec, make_spec

TEXT = (DOCS / "plugins.md").read_text()
IMPORTS = """from dataclasses import replace
from ssvi.plugins import Plugin
from ssvi.registry import KINDS, Kind
"""
PLUGIN = f"{IMPORTS}PLUGIN = Plugin({{}})\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder for plugins; what is loaded in it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_loaded", {})
    before = set(sys.modules)
    kept = {name: copy.copy(vars(one)["_entries"]) for name, one in plugins.REGISTRIES.items()}
    yield tmp_path
    for name, one in plugins.REGISTRIES.items():
        one._entries, one.sources = kept[name], {}
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def brings(folder: Path, content: str, code: str = "", module: str = "mine") -> None:
    """Write a plugin and its code."""
    (folder / f"{module}.py").write_text(PLUGIN.format(content))
    (folder / "mine_code.py").write_text(code)


def ssvi(folder: Path, *words: str, fails: bool = False) -> str:
    done = subprocess.run(
        [BIN / "ssvi", *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


# The text of the docs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of docs/plugins.md, in which its commands were run."""
    folder = tmp_path_factory.mktemp("documented")
    assert write_files(TEXT, folder) == ["my_plugin.py", "my_code.py", "config.yaml"]
    for words in commands(TEXT):
        assert words[0] == "ssvi"
        ssvi(folder, *words[1:], "--threads=1", "--device=cpu")
    return folder


def test_all_four_kinds_train_and_are_evaluated(documented: Path) -> None:
    mine, grown = (json.loads((documented / name / files.METRICS).read_text()) for name in ("mine", "grown"))
    # a tenth by chance
    assert mine["accuracy"] > 0.6
    assert grown["accuracy"] > 0.6
    assert mine["density"] == pytest.approx(0.5, abs=0.05)
    records = read_jsonl(documented / "mine" / files.TOPOLOGY)
    assert records
    for record in records:
        assert record["criteria"] == [*CRITERIA, "bound"]
        assert len(record["iou"]) == len(record["spearman"]) == len(CRITERIA) + 1
    assert any(
        layer["added"] for record in read_jsonl(documented / "grown" / files.TOPOLOGY) for layer in record["layers"]
    )


def test_spec_json_names_the_files(documented: Path) -> None:
    stored = json.loads((documented / "mine" / files.SPEC).read_text())["provenance"]["plugins"]
    sums = {
        name: hashlib.sha256((documented / name).read_bytes()).hexdigest() for name in ("my_code.py", "my_plugin.py")
    }
    assert stored == [{"module": "my_plugin", "version": None, "files": sums}]


def test_the_workflow_plans_without_its_code(documented: Path, tmp_path: Path) -> None:
    for name in ("my_plugin.py", "config.yaml"):
        (tmp_path / name).write_bytes((documented / name).read_bytes())
    (tmp_path / "my_code.py").write_text("raise SystemExit('imported by a plan')\n")
    done = subprocess.run(command(tmp_path, "-n"), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    # two networks, three seeds and two densities: four variants of SSVI, two methods
    assert re.search(r"^train +72$", done.stdout, flags=re.MULTILINE), done.stdout


def test_a_run_whose_plugin_has_changed(documented: Path, tmp_path: Path) -> None:
    for path in documented.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(documented)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.relative_to(documented)).write_bytes(path.read_bytes())
    code = tmp_path / "my_code.py"
    was = hashlib.sha256(code.read_bytes()).hexdigest()
    code.write_text(code.read_text() + "\n# changed\n")
    now = hashlib.sha256(code.read_bytes()).hexdigest()
    words = f"my_code.py of plugin 'my_plugin' was SHA-256 {was[:16]} and is now SHA-256 {now[:16]}"
    for after in (["evaluate", "mine"], commands(TEXT)[0][1:]):
        said = ssvi(tmp_path, *after, "--threads=1")
        assert f"warning: mine: {words}: it was trained with the former." in said
    # its own plugin only
    assert "warning" not in ssvi(documented, "evaluate", "mine", "--threads=1")
    code.unlink()
    assert "no module 'my_code' is installed" in ssvi(tmp_path, "evaluate", "mine", fails=True)


# What a plugin's own copy of what is built in gives ---------------------------------------------------

COPIES = """
from ssvi.core.criteria import modulus, snr_abs
from ssvi.methods.ssvi import SSVI
from ssvi.core.models import mlp

def criterion(mu, sigma, exp_lambda):
    made = snr_abs(mu, sigma, exp_lambda)
    mu.zero_(), sigma.zero_()
    return made

def addition(gradient, mean, sigma):
    made = modulus(gradient, mean, sigma)
    gradient.zero_()
    return made
"""
COPY = """
    criteria={"own_criterion": "mine_code:criterion"}, additions={"own_addition": "mine_code:addition"},
    models={"own_model": "mine_code:mlp"}, methods={"own_method": replace(KINDS["ssvi"], code="mine_code:SSVI")},
"""


def test_copies_train_as_what_is_built_in(room: Path, digits: object) -> None:
    """To the bit, though they change what they are given."""
    import torch

    from ssvi.training.progress import Lines
    from ssvi.training.step import choose_machine
    from ssvi.training.stored import read_model
    from ssvi.training.trainer import Settings, Trainer

    brings(room, COPY, COPIES)
    plugins.load(["mine"])
    machine = choose_machine(torch.device("cpu"), {"hold_memory": False})
    own = {"method": "own_method", "model": "own_model", "criterion": "own_criterion", "addition": "own_addition"}
    trained = []
    for name, options in (("built_in", {"model": "mlp"}), ("own", own)):
        spec = make_spec({"epochs": 2, "batch_size": 256, "delta_t": 2, "density": 0.2, "width": 0.2, **options})
        Trainer(spec, digits, room / name, Settings(machine, 1e9), Lines(), []).run()
        trained.append(read_model(room / name))
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    steps = [[r["step"] for r in read_jsonl(room / name / files.TOPOLOGY)] for name in ("built_in", "own")]
    assert steps[0] == steps[1] != []
    # a training that is to go on from its checkpoint with other code
    (room / "own" / files.TRAINING).unlink()
    (room / "mine_code.py").write_text(COPIES + "#")
    with pytest.raises(
        UserError, match=r"own: mine_code.py of plugin 'mine' was SHA-256 \w{16} and is now .* move the"
    ):
        Trainer(spec, digits, room / "own", Settings(machine, 1e9), Lines(), []).run()


def test_criteria_of_plugins_that_a_run_does_not_use_are_not_in_its_records(room: Path) -> None:
    from ssvi.core.criteria import compared

    built_in = list(CRITERIA)
    brings(room, 'criteria={"one": "mine_code:f", "two": "mine_code:f"}', "f = None")
    plugins.load(["mine"])
    assert list(CRITERIA) == [*built_in, "one", "two"]
    assert compared("snr") == built_in
    assert compared("two") == [*built_in, "two"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("lambda mu, sigma, exp_lambda: mu.sum()", r"the shape of its scores is \[\] on cpu, but must be \[4\] on cpu"),
        ("lambda mu, sigma, exp_lambda: mu[:3]", r"the shape of its scores is \[3\] on cpu, but must be \[4\] on cpu"),
        ("lambda mu, sigma, exp_lambda: (mu - mu) / 0", r"4 of 4 scores are not a number \(NaN\)"),
        ("lambda mu, sigma, exp_lambda: [1, 2, 3, 4]", "gave list, but must give a tensor of scores, real numbers"),
        ("lambda mu, sigma, exp_lambda: mu * 1j", "gave Tensor, but must give a tensor of scores, real numbers"),
    ],
)
@pytest.mark.parametrize("arithmetic", ["stable", "naive"])
def test_scores_that_cannot_be_are_one_line(room: Path, code: str, said: str, arithmetic: str) -> None:
    import torch

    from ssvi.core.criteria import addition_scores, scores

    brings(room, 'criteria={"own": "mine_code:f"}, additions={"own": "mine_code:f"}', f"f = {code}")
    plugins.load(["mine"])
    mu, sigma = torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.ones(4)
    with pytest.raises(UserError, match=rf"^criterion 'own' \(mine_code:f\): {said}"):
        scores("own", mu, sigma, 1.0, arithmetic)
    with pytest.raises(UserError, match=rf"^addition 'own' \(mine_code:f\): {said}"):
        addition_scores("own", mu, sigma, sigma)


def test_what_is_not_finite_before_is_a_training_that_diverged(room: Path) -> None:
    import torch

    from ssvi.core.criteria import scores

    brings(room, 'criteria={"own": "mine_code:f"}', "f = lambda mu, sigma, exp_lambda: mu / sigma")
    plugins.load(["mine"])
    made = scores("own", torch.tensor([1.0, torch.nan]), torch.ones(2))
    assert made.dtype == torch.float64
    assert made.isnan().tolist() == [False, True]


# What is refused --------------------------------------------------------------------------------------

KIND = '"mine_code:f", "mine", ("density",), ("density", "lr"), "6 M"'
# What a plugin is, or what is in its Plugin(...), and what is said.
REFUSED = {
    "no module": (None, "no module 'mine' is installed, nor in the current folder, "),
    "broken": ("PLUGIN = 1 / 0\n", r"cannot be imported: ZeroDivisionError: .* \(.*mine.py, line 1\)"),
    "no Python": ("PLUGIN =\n", r"cannot be imported: SyntaxError: .*mine.py, line 1\)"),
    "an import in it": ("import nowhere\nPLUGIN = 1\n", "cannot be imported: ModuleNotFoundError: .*'nowhere'"),
    "no object": ("plugin = 1\n", r"mine.py has no PLUGIN = ssvi.plugins.Plugin"),
    "in a function": ("def f():\n    PLUGIN = 1\n", r"mine.py has no PLUGIN = ssvi.plugins.Plugin"),
    "another object": ("PLUGIN = [1]\n", r"PLUGIN of .*mine.py is \[1\], but must be a Plugin"),
    "no mapping": ("criteria=['f']", r"criteria is \['f'\], but must be a mapping"),
    "built in": ("criteria={'snr': 'mine_code:f'}", "criterion 'snr' is built in already; give yours another name"),
    "built-in method": ("methods={'vi': None}", "method 'vi' is built in already; give yours another name"),
    "a plugin's": ("models={'other': 'mine_code:f'}", "model 'other' plugin 'other' has already; give yours"),
    "no name": ("models={'a/b': 'mine_code:f'}", "model 'a/b' is no name: letters, digits"),
    "no word": ("models={1: 'mine_code:f'}", "model 1 is no name: letters, digits"),
    "no code": ("models={'m': 'mine_code'}", "model 'm' is 'mine_code', but must say where its code is"),
    "the code itself": ("models={'m': print}", "model 'm' is <built-in .* must say where its code is"),
    "code nowhere": ("additions={'a': 'nowhere:f'}", "addition 'a': nowhere:f leads nowhere: no module 'nowhere'"),
    "no Kind": ("methods={'m': 'mine_code:f'}", "method 'm' is 'mine_code:f', but must be a Kind"),
    "unknown option": (
        f"methods={{'m': Kind({KIND.replace('lr', 'lrr')})}}",
        "method 'm': option 'lrr' is unknown, did you mean 'lr'",
    ),
    "stray factor": (
        f"methods={{'m': Kind({KIND.replace('density', 'alpha', 1)})}}",
        "method 'm': 'alpha' is one of its factors, but not of the options that it uses",
    ),
    "a word for a tuple": (
        "methods={'m': Kind('mine_code:f', 'm', (), 'lr', '6 M')}",
        "method 'm': uses is 'lr', but must be a tuple",
    ),
    "members without their options": (
        f"methods={{'m': Kind({KIND}, parents=('rigl',), of_members=True)}}",
        "method 'm': of_members shares density among members, but it does not use both",
    ),
    "unknown parent": (
        f"methods={{'m': Kind({KIND}, parents=('densse',))}}",
        "method 'm': parent's method 'densse' is unknown, did you mean 'dense'",
    ),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=list(REFUSED))
def test_a_plugin_that_cannot_be_is_one_line_and_brings_nothing(room: Path, text: str | None, said: str) -> None:
    brings(room, "models={'other': 'mine_code:f'}", module="other")
    plugins.load(["other"])
    if text is not None:
        (room / "mine.py").write_text(PLUGIN.format(text) if "={" in text or "=[" in text else text)
    before = {name: list(registry) for name, registry in plugins.REGISTRIES.items()}
    with pytest.raises(UserError) as caught:
        plugins.load(["mine"], "config.yaml: plugins")
    line = str(caught.value)
    assert line.startswith("config.yaml: plugins: plugin 'mine'")
    assert re.search(said, line), line
    assert line.isprintable()
    assert {name: list(registry) for name, registry in plugins.REGISTRIES.items()} == before
    assert list(MODELS.sources) == ["other"]


@pytest.mark.parametrize("name", ["", "a b", "../mine", "mine.py:f", ".mine", "1", "-m"])
def test_what_is_no_module_name(room: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^--plugins: plugin '.*' is no name of a module, as in my_module"):
        plugins.load([name], "--plugins")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", r"leads nowhere: .*mine_code.py has no 'f'\.$"),
        ("\n1 / 0", r"cannot be imported: ZeroDivisionError: .* \(.*mine_code.py, line 2\)\.$"),
        ("import nowhere", r"cannot be imported: ModuleNotFoundError: .*'nowhere' \(.*mine_code.py, line 1\)\.$"),
        ("f =", r"cannot be imported: SyntaxError: invalid syntax \(mine_code.py, line 1\)\.$"),
        ("f = 1", r"is 1, but must be a function or a class\.$"),
    ],
)
def test_code_that_cannot_be_is_one_line_when_it_is_looked_up(room: Path, code: str, said: str) -> None:
    from ssvi.methods import method_class

    content = """criteria={"own": "mine_code:f"}, additions={"own": "mine_code:f"}, models={"own": "mine_code:f"},
    methods={"own": replace(KINDS["vi"], code="mine_code:f")}"""
    brings(room, content, code)
    plugins.load(["mine"])
    for registry in (CRITERIA, ADDITIONS, MODELS):
        with pytest.raises(UserError, match=rf"^{registry.kind} 'own': mine_code:f {said}"):
            registry["own"]
    with pytest.raises(UserError, match=rf"^method 'own': mine_code:f {said}"):
        method_class("own")


def test_a_method_that_is_none(room: Path) -> None:
    from ssvi.methods import method_class

    brings(room, 'methods={"own": replace(KINDS["vi"], code="mine_code:dict")}', "dict = dict")
    plugins.load(["mine"])
    with pytest.raises(UserError, match=r"^method 'own': mine_code:dict is <class 'dict'>, but must be a subclass of "):
        method_class("own")


@pytest.mark.parametrize(
    ("base", "name", "place"),
    [
        ("base:Method", "extra_loss", "on_gradient"),
        ("base:Method", "samples", "a Predictive of make_predictive"),
        ("rigl:RigL", "ranking", "a Growth of its subspace"),
        ("ssvi:SSVI", "score", "make_subspace"),
    ],
)
def test_a_method_written_for_an_earlier_version(room: Path, base: str, name: str, place: str) -> None:
    """Nobody would call what it has, and it would train as the method that it inherits from."""
    from ssvi.methods import method_class

    module, base = base.split(":")
    code = f"from ssvi.methods.{module} import {base}\nclass Own({base}):\n    def {name}(self): ..."
    brings(room, 'methods={"own": replace(KINDS["vi"], code="mine_code:Own")}', code)
    plugins.load(["mine"])
    said = f"^method 'own': mine_code:Own has '{name}', which no method is asked for any more; it belongs to {place}"
    with pytest.raises(UserError, match=said):
        method_class("own")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mine", r"^config.yaml: plugins: \"mine\" is not allowed: a list of Python modules, each once"),
        ([1], r"^config.yaml: plugins.0: 1 is not allowed"),
        (["mine", "mine"], r"^config.yaml: plugins: .* is not allowed: a list of Python modules, each once"),
        (["nowhere"], r"^config.yaml: plugins: plugin 'nowhere': no module 'nowhere' is installed"),
    ],
)
def test_a_config_that_names_no_plugin(room: Path, value: object, said: str) -> None:
    from ssvi.runs.config import load_config

    study = {"experiments": {"e": {"method": "dense"}}}
    write_config(room, config_of("tiny", study, plugins=value))
    with pytest.raises(UserError, match=said):
        load_config(Path("config.yaml"))


@pytest.mark.parametrize(
    "recorded",
    [{}, "mine", [1], [{"module": "mine"}], [{"module": 1, "files": {}}], [{"module": "m", "files": {"a": 1}}]],
)
def test_a_spec_json_that_names_no_plugin(room: Path, recorded: object) -> None:
    (room / files.SPEC).write_text(json.dumps(spec_record(RunSpec(), {"plugins": recorded})))
    with pytest.raises(UserError, match=r"spec.json: provenance.plugins has .*, but must have modules and their files"):
        read_spec(room)


def test_a_run_folder_runs_nothing_but_plugins(room: Path) -> None:
    (room / "harmful.py").write_text("raise SystemExit")
    record = spec_record(RunSpec(), {"plugins": [{"module": "harmful", "files": {}}]})
    run = room / "run"
    run.mkdir()
    (run / files.SPEC).write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"spec.json: provenance.plugins: plugin 'harmful': .* has no PLUGIN"):
        read_spec(run)


@pytest.mark.parametrize("module", ["sent", "parcel.sent"])
def test_a_run_folder_brings_no_code_where_one_works_in_it(room: Path, monkeypatch, module: str) -> None:
    """What it names and has in it is not run, nor a package around that."""
    brings(room, 'criteria={"own": "mine_code:f"}')
    (room / "parcel").mkdir()
    (room / "parcel/__init__.py").write_text("raise SystemExit")
    (room / "sent.py").write_text("PLUGIN = 1\nraise SystemExit")
    record = spec_record(RunSpec(), {"plugins": [{"module": module, "files": {}}]})
    (room / files.SPEC).write_text(json.dumps(record))
    monkeypatch.chdir(room)
    with pytest.raises(UserError, match=rf"plugin '{module}' would be .* lies in the run folder itself and is not run"):
        read_spec(Path())


def test_a_run_folder_of_before(room: Path) -> None:
    (room / files.SPEC).write_text(json.dumps({"spec": vars(RunSpec()), "provenance": {}}))
    assert read_spec(room) == RunSpec()


def test_a_plugin_beside_the_config_is_found_from_elsewhere(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssvi.runs.config import load_config

    brings(room, 'criteria={"own": "mine_code:f"}')
    write_config(room, config_of("tiny", {"experiments": {"e": {"criterion": "own"}}}, plugins=["mine"]))
    (room / "elsewhere").mkdir()
    monkeypatch.chdir(room / "elsewhere")
    assert load_config(Path("../config.yaml"))["plugins"] == ["mine"]


def test_a_parent_that_was_trained_by_another_version_of_a_plugin(
    room: Path, data_root: Path, capsys: pytest.CaptureFixture
) -> None:
    from ssvi.cli import main

    brings(room, 'models={"own": "mine_code:mlp"}', "from ssvi.core.models import mlp")
    train = ["train", "--plugins=mine", "--model=own", "--epochs=1", "--batch-size=512", "--width=0.1"]
    machine = ["--device=cpu", "--plain", f"--data-root={data_root}"]
    main([*train, "--method=dense", *machine])
    (room / "mine_code.py").write_text("from ssvi.core.models import mlp  # changed\n")
    main([*train, "--method=vd", "--parent=dense,epochs=1,batch_size=512", *machine])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    (line,) = [one for one in lines if "plugin" in one]
    assert re.fullmatch(
        r"warning: results/runs/digits/own/dense/.*: mine_code.py of plugin 'mine' was SHA-256 .*", line
    )


# Installed packages -----------------------------------------------------------------------------------


def test_an_installed_package_is_loaded_always_and_only_its_own_files_are_its(room: Path) -> None:
    site = room / "site-packages"
    for name, text in {
        "theirs/__init__.py": "",
        "theirs/plugin.py": PLUGIN.format('criteria={"theirs": "theirs.code:f"}'),
        "theirs/code.py": "import other\nfrom theirs import helper\nimport ssvi\nf = lambda mu, sigma, exp_lambda: mu",
        "theirs/helper.py": "",
        "other.py": "",
        "theirs-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n",
        "theirs-1.2.dist-info/top_level.txt": "theirs\n",
        "theirs-1.2.dist-info/entry_points.txt": "[ssvi.plugins]\nany = theirs.plugin\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    code = (
        "import json, ssvi.runs.plugins as p, ssvi.runs.spec as s; p.load(); "
        "print(json.dumps(p.used(s.RunSpec(criterion='theirs', parent=''))))"
    )
    path = os.pathsep.join([str(ROOT), str(site)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    (found,) = json.loads(done.stdout)
    assert (found["module"], found["version"]) == ("theirs.plugin", "1.2")
    assert list(found["files"]) == ["theirs/__init__.py", "theirs/code.py", "theirs/helper.py", "theirs/plugin.py"]


def test_what_a_run_uses_for_its_parent_is_recorded(room: Path) -> None:
    content = """methods={"theirs": replace(KINDS["vi"], code="mine_code:f"),
    "own": replace(KINDS["ssvi"], code="mine_code:f", parents=("theirs",))}"""
    brings(room, content)
    plugins.load(["mine"])
    assert plugins.used(RunSpec()) == []
    spec = make_spec({"method": "own", "parent": "theirs,epochs=3"})
    assert [one["module"] for one in plugins.used(spec)] == ["mine"]
