"""Files, changes and commands as the docs show them, to be made and run."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
CHANGES = re.compile(r"\n```diff\n--- (\S+)\n(.*?)```", re.DOTALL)
BLOCKS = re.compile(r"((?:[^\n]+\n)+)\n```(python|yaml|sh)\n(.*?)```", re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """The sections of a text of the docs, in its order, by their headings."""
    parts = re.split(r"^## (.+)\n", (DOCS / text).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write_files(shown: str, folder: Path) -> list[str]:
    """Write the files that a text shows, each named in the paragraph before it; returns their names."""
    written = []
    for paragraph, language, content in BLOCKS.findall(shown):
        if language != "sh":
            named = re.findall(rf"`([\w/-]+\.{'py' if language == 'python' else 'yaml'})`", paragraph)
            assert len(named) == 1, paragraph
            assert not (folder / named[0]).exists(), named[0]
            (folder / named[0]).write_text(content)
            written += named
    return written


def make_changes(shown: str, folder: Path) -> list[str]:
    """Change files as a text shows, whose lines each stand in them once; returns their names, each once."""
    changed = []
    for name, lines in CHANGES.findall(shown):
        before, after = ("".join(f"{x[1:]}\n" for x in lines.splitlines() if x[0] in marks) for marks in (" -", " +"))
        content = (folder / name).read_text()
        assert content.count(before) == 1, before
        (folder / name).write_text(content.replace(before, after))
        changed.append(name)
    return list(dict.fromkeys(changed))


def commands(shown: str) -> list[list[str]]:
    """The commands that a text shows, as words."""
    found = [content for _, language, content in BLOCKS.findall(shown) if language == "sh"]
    return [shlex.split(line) for content in found for line in content.splitlines()]
