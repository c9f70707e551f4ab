"""Python without some packages: as if these were not installed, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from studies import ROOT

# Every finder of modules and of metadata, but for what is hidden.
HIDING = """
import sys
class Finder:
    def __init__(self, finders, hidden):
        self.finders, self.hidden = finders, hidden
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.hidden:
            specs = (finder.find_spec(name, path, target) for finder in self.finders)
            return next((spec for spec in specs if spec is not None), None)
    def find_distributions(self, *context):
        for finder in self.finders:
            for one in getattr(finder, "find_distributions", lambda *_: ())(*context):
                if one.metadata["Name"].lower().removeprefix("py") not in self.hidden:
                    yield one
sys.meta_path[:] = [Finder(sys.meta_path[:], set(sys.argv.pop(1).split(",")))]
"""


def without(hidden: tuple[str, ...], module: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `python -m MODULE WORDS` says and ends with in a folder where these packages are not installed."""
    code = f"{HIDING}\nimport runpy\nrunpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, ",".join(hidden), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
