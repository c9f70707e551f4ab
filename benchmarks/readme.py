"""What README.md and docs/ show of three studies and of the benchmarks: `python -m benchmarks.readme`.

Tables and pictures of a study that is made are copied to docs/STUDY/, so that a fresh clone shows them; the page there
and the results section of the main README are rendered from what docs/ has, and a test renders both again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import performance
from ssvi.analysis import quantities as q
from ssvi.analysis.shown import to_markdown
from ssvi.analysis.tables.rows import POINT_MARK
from ssvi.errors import UserError
from ssvi.machine.disk import write_bytes, write_text
from ssvi.runs.config import load_config
from ssvi.runs.places import at_hand

RESULTS = ("<!-- results: rendered by `make readme` -->", "<!-- end of results -->")
SHOWN = ("tables/*.md", "tables/*.csv", "figures/*.png", "figures/*.md")
PERFORMANCE = ("<!-- performance: rendered by `make readme` -->", "<!-- end of performance -->")
# Of the table `uncertainty`, what the main README has room for.
COMPACT = (q.ACCURACY, q.NLL, q.NLL_SCALED, q.ECE, q.ECE_SCALED, q.TEMPERATURE, q.INFORMATION_SHARE, q.DISAGREEMENT)
COMPACT_HEADINGS = ("method", "density", "options", *(to_markdown(one.heading) for one in COMPACT), "n")

# Of each study the introduction of its page, and what stands under its heading in the main README.
FASHION = """\
Every table and figure that `make fashion` makes, as it was rendered last. Fashion-MNIST, reduced to 14 x 14 pixels:
10,000 of its training images, of which a tenth is held out, and all 10,000 test images; ResNet-8, 10 epochs, no
augmentation, three to ten seeds. Learning rates and the like are those of the least NLL on the held-out images, of four
trials a method at a seed that is not used again (study `fashion_tuning`). These are more test images than digits has
by far, but still not the paper's data, network or epochs. What the metrics are, and what they do not say:
[metrics](../metrics.md)."""
FASHION_WORDS = """\
Results of the last epoch; nothing is chosen on test data: hyperparameters are those of the least NLL on held-out
images, four trials a method."""
DIGITS = """\
Every table and figure that `make reproduce` makes, as it was rendered last. Handwritten digits of 8 x 8 pixels and
a network of 77,000 weights are not the paper's problem: these pages show what the tool makes, and how the methods
compare there, not whether the paper's numbers hold. In the HTML report the same stands beside every run's options
and curves, and a page that says how each number came about."""
DIGITS_WORDS = """\
Results of the last epoch; nothing is chosen on test data. The test set is small, and so is the number of seeds: a
difference of a point in accuracy is within the noise."""

LEARNING = """\
Every table and figure that `make learning` makes, as it was rendered last: SSVI by SGD, AdamW and the natural gradient,
from means of three starts, at two temperatures, and RigL of the same start by the same optimisers, which says what a
network without a posterior gets from them. The natural gradient also has another kind and size of noise than SGD; one
row has SGD with that noise, and sigma as it starts. Rates are those of the least NLL on held-out images of
Fashion-MNIST, twelve trials each in two rounds (study `learning_tuning`), of which the natural gradient's lie at the
edge of what was tried; the published recipe has the four of `fashion_tuning`. Digits in full at density 0.1, five
seeds; Fashion-MNIST as small as in the study `fashion`, three. The equations, and what they do at low temperatures:
[natural gradients](../methods.md#natural-gradients)."""
LEARNING_WORDS = """\
The published recipe leaves sigma where it started. `posterior_optimizer: ivon` learns means and sigma together by the
natural gradient, for the products of a plain network's step; `make learning` asks what that is worth beside AdamW and a
better start of the means, and what RigL gets from these."""

# From a study's folder in docs/ to a part of the main README.
Part = Callable[[Path], str]


def table(name: str, docs: Path) -> str:
    """A table as it is."""
    return _read(docs / "tables" / f"{name}.md")


def columns(name: str, headings: Sequence[str], docs: Path) -> str:
    """Some columns of a table, those of `headings` that it has, with its caption; of its notes what † stands for."""
    lines = _read(docs / "tables" / f"{name}.md").splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    kept = [i for i, cell in enumerate(rows[0]) if cell.strip() in headings] if rows else []
    short = [f"|{'|'.join(row[i] for i in kept)}|" for row in rows]
    notes = [line for line in lines if line.startswith(f"- {POINT_MARK}")]
    return "\n".join([lines[0], "", *short, "", *notes]).strip()


def picture(name: str, docs: Path) -> str:
    """A figure with its caption."""
    caption = _read(docs / "figures" / f"{name}.md").split("\n\n")[0]
    return f"![{name}]({docs.parent.name}/{docs.name}/figures/{name}.png)\n\n{caption}"


def verdicts(docs: Path, name: str = "claims", begin: str = "Verdicts of ") -> str:
    """How many of the claims of a table hold, fail, are undecided or not comparable: its note that begins so."""
    lines = _read(docs / "tables" / f"{name}.md").splitlines()
    found = "".join(line.removeprefix("- ") for line in lines if line.startswith(f"- {begin}"))
    return f"{found} Each with its interval: [{name}]({_page(docs)}#table-{name})."


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the whole study {path.parent.parent.name}, then `make readme`.")
    return path.read_text().strip()


def _page(docs: Path) -> str:
    return f"{docs.parent.name}/{docs.name}/README.md"


@dataclass(frozen=True)
class Study:
    """A study that docs/ and the main README show.

    Attributes:
        data: its data set in words.
        introduction: of its page.
        words: under its heading in the main README.
        leading: what that shows of it if it comes first there.
        brief: what it shows if another does.
    """

    data: str
    introduction: str
    words: str
    leading: tuple[Part, ...]
    brief: tuple[Part, ...] = (partial(table, "table1"), verdicts)


WAYS: tuple[Part, ...] = (
    partial(picture, "learning"),
    partial(verdicts, name="learning_claims", begin="Of ways of learning "),
)

# In the order of the main README.
STUDIES = {
    "fashion": Study(
        "Fashion-MNIST",
        FASHION,
        FASHION_WORDS,
        (
            partial(table, "table1"),
            partial(columns, "uncertainty", COMPACT_HEADINGS),
            partial(picture, "shift"),
            verdicts,
        ),
    ),
    "digits": Study(
        "digits",
        DIGITS,
        DIGITS_WORDS,
        (partial(table, "table1"), partial(table, "table2")),
    ),
    "learning": Study(
        "ways of learning",
        LEARNING,
        LEARNING_WORDS,
        WAYS,
        WAYS,
    ),
}


def snapshot(reports: Path, docs: Path) -> None:
    """Copy a study's tables (Markdown, CSV) and figures (PNG, captions).

    Raises:
        UserError: if the study has not been made.
    """
    found = [path for pattern in SHOWN for path in sorted(reports.glob(pattern))]
    if not found:
        raise UserError(f"{reports}: has no tables and figures; run `make reproduce` first.")
    for pattern in SHOWN:
        for path in docs.glob(pattern):
            path.unlink()
    for path in found:
        target = docs / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def gallery(docs: Path) -> str:
    """The page docs/STUDY/README.md from the snapshot beside it; a table and a figure of one name have two headings."""
    parts = [f"# The study {docs.name}\n\n{STUDIES[docs.name].introduction}\n"]
    for path in sorted((docs / "tables").glob("*.md")):
        parts.append(f"## Table {path.stem}\n\n{path.read_text()}")
    for path in sorted((docs / "figures").glob("*.png")):
        caption = path.with_suffix(".md").read_text()
        parts.append(f"## Figure {path.stem}\n\n![{path.stem}](figures/{path.name})\n\n{caption}")
    return "\n".join(parts)


def section(docs: Path) -> str:
    """The results section of the main README: of the studies that docs/ has, the first at length.

    Raises:
        UserError: if a part is not there.
    """
    there = [name for name in STUDIES if (docs / name / "README.md").is_file()]
    parts = []
    for name in there:
        study, folder = STUDIES[name], docs / name
        more = f"All tables and figures: [docs/{name}]({_page(folder)})."
        shown = study.leading if name == there[0] else study.brief
        parts += [f"## Results on {study.data}", f"{study.words} {more}", *(part(folder) for part in shown)]
    return "\n\n".join(parts)


def insert(readme: str, marks: tuple[str, str], text: str) -> str:
    """The README with what stands between two marks replaced."""
    begin, end = marks
    before, rest = readme.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def refresh(reports: Path, docs: Path) -> list[str]:
    """Take over the studies whose report is made; returns their names. What docs/ has of others stays as it is.

    Raises:
        UserError: if one has a report but no tables and figures.
    """
    made = [name for name in STUDIES if (reports / name / "report.html").is_file()]
    for name in made:
        snapshot(reports / name, docs / name)
    for name in STUDIES:
        if (docs / name).is_dir():
            write_text(docs / name / "README.md", gallery(docs / name))
    return made


def draw_corruptions(root: Path, path: Path) -> None:
    """Draw every corruption of an image as the study fashion has them, of 14 x 14 pixels."""
    import torch

    from ssvi.data import load
    from ssvi.data.corruptions.sheet import draw, typical
    from ssvi.runs.spec import RunSpec

    data = load(RunSpec(dataset="fashion", shrink=2), root, torch.device("cpu"))
    write_bytes(path, draw(typical(data.test_images)))


def main() -> None:
    """Refresh docs/, README.md and the benchmarks' picture from reports/, benchmarks/records/ and the data at hand."""
    config = load_config(Path("config.yaml"))
    docs, readme, root = Path("docs"), Path("README.md"), Path(config["data_root"])
    made = refresh(Path(config["reports"]), docs)
    for name in STUDIES:
        print(f"docs/{name}: {'refreshed' if name in made else 'its study is not made here, it stays as it is'}")
    if at_hand("fashion", root):
        draw_corruptions(root, docs / "corruptions.png")
    records = performance.read_records(Path("benchmarks/records"))
    performance.write_plots(records, Path("benchmarks/scaling"))
    text = insert(readme.read_text(), RESULTS, section(docs))
    write_text(readme, insert(text, PERFORMANCE, performance.section(records)))


if __name__ == "__main__":
    main()
