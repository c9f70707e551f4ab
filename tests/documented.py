"""Files and commands as the docs show them, to be run."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = re.compile(r"((?:[^\n]+\n)+)\n```(python|yaml|sh)\n(.*?)```", re.DOTALL)


def write_files(text: str, folder: Path) -> list[str]:
    """Write the files that a text of the docs shows, each named in the paragraph before it; returns their names."""
    written = []
    for paragraph, language, content in BLOCKS.findall((DOCS / text).read_text()):
        if language != "sh":
            named = re.search(rf"`([\w-]+\.{'py' if language == 'python' else 'yaml'})`", paragraph)
            assert named, paragraph
            (folder / named[1]).write_text(content)
            written.append(named[1])
    return written


def commands(text: str) -> list[list[str]]:
    """The commands that it shows, as words."""
    shown = [content for _, language, content in BLOCKS.findall((DOCS / text).read_text()) if language == "sh"]
    return [shlex.split(line) for content in shown for line in content.splitlines()]
