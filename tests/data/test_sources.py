"""What a config is made of: files and settings, one over the other; each wrong value is blamed on what said it."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from studies import config_of

from ssvi.cli import main, parser
from ssvi.cli.arguments import config_sources
from ssvi.errors import UserError
from ssvi.runs.config import load
from ssvi.runs.configfile import Sources, merged

CONFIG = config_of("tiny", {"experiments": {"vi": {"method": "vi", "epochs": 1}}})
trees = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write("config.yaml", CONFIG)
    return tmp_path


def write(name: str, config: dict) -> Path:
    Path(name).write_text(yaml.safe_dump(config))
    return Path(name)


def over(*files: Path, settings: tuple[str, ...] = ()) -> Sources:
    return Sources.over(Path("config.yaml"), files, settings)


@given(st.lists(mappings, max_size=3))
def test_layers_are_merged_as_snakemake_does(layers: list[dict]) -> None:
    from snakemake.utils import update_config

    expected: dict = {}
    for layer in layers:
        if any(isinstance(layer.get(key), dict) != isinstance(value, dict) for key, value in expected.items()):
            return  # where one has a mapping and another none, Snakemake fails or not by how deep it is
        update_config(expected, layer)
    if not any(_mixed(a, b) for a in layers for b in layers):
        assert merged(layers) == expected


def _mixed(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return any(_mixed(one[key], other[key]) for key in one.keys() & other.keys())
    return isinstance(one, dict) != isinstance(other, dict)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("evaluation={samples: 7}", 7), ("evaluation={samples: 7, bins: 3}", 7), ('evaluation={"samples": 7}', 7)],
)
def test_a_setting_is_read_as_in_a_file(here: Path, setting: str, value: int) -> None:
    assert load(over(settings=(setting,)))["evaluation"]["samples"] == value
    assert load(over(settings=("download=true",)))["download"] is True


WRONG = [
    ((), ("evaluation={samples: x}",), '--config: evaluation.samples: "x" is not allowed'),
    ((), ("evaluation={samples: [}",), "--config: evaluation: line 1: not readable as YAML"),
    ((), ("evaluation",), "--config: 'evaluation' is not KEY=VALUE"),
    ((), ("stduy=tiny",), "--config: key 'stduy' is unknown, did you mean 'study'?"),
    ((), ("study=tiny", "study=tiny"), "--config: 'study' is there twice"),
    ((), ("study=mine",), "--config: study: study 'mine' is unknown"),
    (({"study": "mine"}, {"threads": 2}), (), "0.yaml: study: study 'mine' is unknown"),
    (({"threads": 2}, {"threads": 0}), ("study=tiny",), "1.yaml: threads: 0 is not allowed"),
    (({"threads": 2}, {"data_root": "~nobody9/x"}), (), "1.yaml: data_root: '~nobody9/x' is in no home folder"),
    (({"threads": 0}, {"threads": 0}), (), "0.yaml: threads: 0 is not allowed"),
    (({"study": "mine"}, {"studies": {"other": {"like": "tiny"}}}), (), "0.yaml: study: study 'mine' is unknown"),
]


@pytest.mark.parametrize(("files", "settings", "line"), WRONG)
def test_what_said_it_is_blamed(here: Path, files: tuple[dict, ...], settings: tuple[str, ...], line: str) -> None:
    paths = [write(f"{i}.yaml", content) for i, content in enumerate(files)]
    with pytest.raises(UserError) as caught:
        load(over(*paths, settings=settings))
    assert str(caught.value).startswith(line)


def test_a_fault_of_the_first_file_is_not_blamed_on_those_over_it(here: Path) -> None:
    write("config.yaml", CONFIG | {"threads": 0})
    with pytest.raises(UserError, match=r"^config\.yaml: threads: 0 is not allowed"):
        load(over(write("more.yaml", {"download": True}), settings=("study=tiny",)))


def test_commands_take_the_words_of_snakemake(here: Path) -> None:
    write("mine.yaml", {"studies": {"mine": {"like": "tiny"}}})
    words = ["report", "--configfile", "mine.yaml", "--config", "study=mine", "evaluation={samples: 3}"]
    root, sources = config_sources(parser().parse_args(words))
    assert root == Path()
    config = load(sources)
    assert (config["study"], config["evaluation"]) == ("mine", {"samples": 3, "bins": 15})
    given = parser().parse_args(["ui", "--config", "sub/other.yaml", "study=mine"])
    assert config_sources(given) == (Path("sub"), Sources((Path("sub/other.yaml"),), ("study=mine",)))
    with pytest.raises(SystemExit, match="--config names two files, 'a' and 'b'"):
        main(["report", "--config", "a", "b"])


def test_a_config_file_alone_needs_no_other(here: Path) -> None:
    os.rename("config.yaml", "mine.yaml")
    assert load(over(Path("mine.yaml")))["study"] == "tiny"
    with pytest.raises(UserError, match=r"^config\.yaml: no such file"):
        load(over())


def test_a_tilde_is_the_home_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(over(write("more.yaml", {"results": "~/r", "reports": "~"}), settings=("data_root=~/d",)))
    home = str(here / "home")
    assert (found["results"], found["reports"], found["data_root"]) == (f"{home}/r", home, f"{home}/d")
    monkeypatch.setenv("SSVI_DATA", "~/env")
    given = parser().parse_args(["train", "--out=~/o", "--runs=~/runs"])
    assert [str(path) for path in (given.out, given.runs, given.data_root)] == [
        f"{home}/{n}" for n in ("o", "runs", "env")
    ]
    assert str(parser().parse_args(["data", "digits", "--root=~/x"]).data_root) == f"{home}/x"


def test_an_unknown_home_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["data", "digits", "--root=~nobody9/x"])
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "'~nobody9/x' is in no home folder that is known here" in line
