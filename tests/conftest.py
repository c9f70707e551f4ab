"""One thread a test process, since several run side by side; and how often faults are tried.

A test says which fault it tries: `@pytest.mark.fault("SIGKILL at a random moment", quick=8, whole=60)`. If it has an
argument `trial` it runs so many times, with 0, 1, 2, ...; other parametrizations are trials of their own. `quick=0`
leaves it out unless `--all-trials` is given. At the end stands a table of what was survived.
"""

import os
import signal
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# a shell ignores Ctrl-C for what it starts in the background, and tests send it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# no test depends on time
settings.register_profile("ssvi", deadline=None)
settings.load_profile("ssvi")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data sets are cached."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def digits(data_root: Path) -> object:
    """The data set `digits` on the CPU."""
    import torch

    from ssvi.data import load
    from ssvi.runs.spec import RunSpec

    return load(RunSpec(dataset="digits"), data_root, torch.device("cpu"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-trials", action="store_true", help="every trial of every fault, not the quick subset")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name, quick=1, whole=1): a fault, and how often it is tried")


def _trials(config: pytest.Config, marker: pytest.Mark) -> int:
    return marker.kwargs.get("whole" if config.getoption("--all-trials") else "quick", 1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trial" in metafunc.fixturenames:
        (marker,) = metafunc.definition.iter_markers("fault")
        metafunc.parametrize("trial", range(_trials(metafunc.config, marker)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, left_out = [], []
    for item in items:
        marker = item.get_closest_marker("fault")
        if marker is not None:
            item.user_properties.append(("fault", marker.args[0]))
        (left_out if marker is not None and not _trials(config, marker) else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    # The longest first, together: one process makes their study, the other one everything else meanwhile.
    items[:] = sorted(kept, key=lambda item: item.path.name != "test_workflow.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Fault, trials, survived; a trial that could not be made here is not counted, and its reason is named."""
    trials: dict[str, list[str]] = defaultdict(list)
    reasons: dict[str, set[str]] = defaultdict(set)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            # that of a file that could not be imported, or was left out as a whole, is no test's and has none
            if fault := dict(getattr(report, "user_properties", ())).get("fault"):
                trials[fault].append(outcome)
                if outcome == "skipped":
                    reasons[fault].add(f"{str(report.longrepr[2]).removeprefix('Skipped: ')}")
    if not trials:
        return
    width = max(map(len, trials))
    terminalreporter.section("faults")
    terminalreporter.line(f"{'fault':<{width}}  trials  survived")
    for fault, outcomes in sorted(trials.items()):
        tried = len(outcomes) - outcomes.count("skipped")
        notes = "".join(f"  ({outcomes.count('skipped')} skipped: {reason})" for reason in sorted(reasons[fault]))
        terminalreporter.line(f"{fault:<{width}}  {tried:6}  {outcomes.count('passed'):8}{notes}")
