"""Where the project is, whichever room a test is in."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
