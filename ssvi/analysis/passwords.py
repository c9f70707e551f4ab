"""What may be shown of an address and of an error: no password, no token."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from ssvi.errors import told

HIDDEN = "***"
VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
LONG = 4  # characters from which on a secret is hidden within words too
LINE_LENGTH = 500

USER_IN_URL = re.compile(r"([\w.+-]+://)[^\s/?#'\"<>]*@")
NUMBER = re.compile(r"^\[Errno -?\d+\] ")
OBJECT = re.compile(r"<([\w.]+) object at 0x\w+>")  # or the same error would read otherwise each time
QUERY_IN_URL = re.compile(r"(://[^\s?'\"<>]*)\?[^\s'\"<>]*")


def without_password(uri: str) -> str:
    """An address without user, password and query.

    Where it cannot be told whether an @ ends a password or is part of a path, all of it is hidden but the scheme.
    """
    scheme, slashes, rest = _split(uri)
    if scheme == "sqlite":  # a path, and perhaps options
        return f"{scheme}{slashes}{rest.partition('?')[0]}"
    before, _, after = rest.rpartition("@")
    return f"{scheme}{slashes}{HIDDEN if re.search('[/?#]', before) else re.split('[?#]', after)[0]}"


def one_line(error: BaseException, uri: str = "") -> str:
    """The first line of an error, without the secrets of an address and of the environment."""
    text = told(error) if isinstance(error, OSError) else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    # the words of Python's own errors say little without their names
    if not line or (type(error).__module__ == "builtins" and not isinstance(error, OSError | ImportError)):
        line = f"{type(error).__name__}: {line}".removesuffix(": ")
    line = OBJECT.sub(r"\1", NUMBER.sub("", line)).rstrip(".")
    return without_secrets(line, uri)[:LINE_LENGTH]


def without_secrets(text: str, uri: str = "") -> str:
    """A text without the passwords and tokens of an address and of the environment, however they are written."""
    spellings = {spelling for secret in _secrets(uri) for spelling in _spellings(secret)} - {""}
    for secret in sorted(spellings, key=len, reverse=True):
        pattern = re.escape(secret) if len(secret) >= LONG else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
    return QUERY_IN_URL.sub(r"\1", USER_IN_URL.sub(r"\1", text))


def _split(uri: str) -> tuple[str, str, str]:
    scheme, slashes, rest = uri.partition("://")
    return (scheme, slashes, rest) if slashes else ("", "", uri)


def _secrets(uri: str) -> Iterator[str]:
    scheme, _, rest = _split(uri)
    # A password with a slash in it ends at the last @ for the user, and before the slash for most parsers.
    for authority in () if scheme == "sqlite" else (rest, re.split("[/?#]", rest)[0]):
        user, colon, password = authority.rpartition("@")[0].partition(":")
        yield password if colon else user
        yield from re.split(r"[/?#@:\[\]]", password)
    yield from re.findall(r"[?&;#][^=&;#]*=([^&;#]*)", rest)
    yield from (os.environ.get(name, "") for name in VARIABLES)


def _spellings(secret: str) -> Iterator[str]:
    """As it was given, decoded, encoded, and as Python and JSON quote each of them."""
    for plain in {secret, unquote(secret), unquote_plus(secret)}:
        for written in (plain, quote(plain), quote(plain, safe=""), quote_plus(plain)):
            yield from (written, repr(written)[1:-1], json.dumps(written)[1:-1])
