"""What a check is told, and what it finds."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssvi.errors import UserError, one_line

# From the best to the worst.
VERDICTS = ("ok", "skipped", "note", "warning", "failed")
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        verdict: `ok`; `skipped`, could not or need not be looked at; `note`, worth knowing; `warning`, costs time, or
            makes results harder to compare or keep; `failed`, results would be wrong or lost, or nothing runs.
        finding: what is so.
        meaning: what that means for results.
        advice: what to do; empty where there is nothing.
    """

    verdict: str
    finding: str
    meaning: str = ""
    advice: str = ""

    def __post_init__(self) -> None:
        assert self.verdict in VERDICTS, self.verdict
        # whoever is warned is told why, and what to do
        assert self.verdict not in ("warning", "failed") or (self.meaning and self.advice), self
        for name, text in asdict(self).items():
            object.__setattr__(self, name, one_line(text))


def worst(results: Iterable[Result]) -> Result:
    """Several findings in one: the verdict of the worst, all that was found, what the worst ones mean."""
    found = list(results)
    verdict = max((one.verdict for one in found), key=VERDICTS.index)
    telling = [one for one in found if one.verdict == verdict]
    first = sorted(found, key=lambda one: -VERDICTS.index(one.verdict))
    meaning, advice = ([getattr(one, part) for one in telling] for part in ("meaning", "advice"))
    return Result(verdict, _joined(one.finding for one in first), _joined(meaning), _joined(advice))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


@dataclass(frozen=True)
class Asked:
    """What the doctor is to look at.

    Attributes:
        device: auto, cpu, cuda or cuda:N.
        results: the results folder of a workflow; it need not be there.
        data_root: where data sets are kept.
        threads: of each training on a CPU; None where that is left to the workflow.
        config: the config file that this was read from, and that tells the study; None without one.
        token: names what is written for a moment, so that what a check that was killed has left can be found.
    """

    device: str
    results: Path
    data_root: Path
    threads: int | None = None
    config: Path | None = None
    token: str = "0"

    def to_json(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Asked:
        """The reverse of `to_json`."""
        paths = {name: Path(value) for name in ("results", "data_root", "config") if (value := record[name])}
        return Asked(**{**record, **paths})


@dataclass(frozen=True)
class Check:
    """A line of the doctor.

    Attributes:
        code: module (of this folder) and function, which takes an `Asked`, and `of` where there is one, and gives a
            `Result`.
        limit: seconds after which it is killed, and has failed.
        needs: checks that it is left out for, if they were made and failed.
        alone: no other check is made in its process after it, because it changes that or uses much memory.
        thorough: it is made with --thorough alone.
        of: what it is made of, where there is more than one such check.
    """

    code: str
    limit: float = 10.0
    needs: tuple[str, ...] = ()
    alone: bool = False
    thorough: bool = False
    of: str = ""


def chosen(checks: dict[str, Check], patterns: list[str], thorough: bool) -> dict[str, Check]:
    """The checks that are to be made; those that are named are made without --thorough too.

    Raises:
        UserError: if a pattern names none.
    """
    for pattern in patterns:
        if not fnmatch.filter(checks, pattern):
            raise UserError(
                f"--only {pattern!r}: no such check; choose from {', '.join(checks)}, or a pattern of them."
            )
    if patterns:
        return {name: check for name, check in checks.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    return {name: check for name, check in checks.items() if thorough or not check.thorough}
