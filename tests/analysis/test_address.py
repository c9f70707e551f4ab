"""An address where no mirror can ever be is refused at once; one that may work later is not."""

import os
from pathlib import Path

import pytest

from ssvi.analysis.address import VARIABLE, given_address
from ssvi.errors import UserError

NEVER = {
    "./mlruns": "is a folder",
    "mlruns": "is a folder",
    "/data/mlruns": "is a folder",
    "file:///data/mlruns": "is a folder",
    "file:mlruns": "is a folder",
    "localhost:5000": "http:// is missing",
    "me:geheim@host:5000/mlflow": "http:// is missing",
    "foo://me:geheim@host": "scheme 'foo' is unknown",
    "htp://host": "scheme 'htp' is unknown, did you mean 'http'?",
    "postgres://me:geheim@host/db": "did you mean 'postgresql'?",
    "http://": "is not a valid host",
    "http://:5000": "is not a valid host",
    "http://me:geheim@host:port": "is not a valid host or port",
    "http://host:99999": "is not a valid host or port",
    "http://me:geheim@[::1": "Invalid IPv6 URL",
    "http://a host:5000": "is not a valid host",
    "sqlite://mlflow.db": "two slashes",
    "sqlite://": "in memory",
    "sqlite:///:memory:": "in memory",
    "sqlite:///~/mlflow.db": "no home folder",
    "sqlite:///.": "is a folder, not a file",
}
PERHAPS = (
    "",
    "  ",
    "http://host:5000",
    "https://me:geheim@host/mlflow/",
    "HTTP://[::1]:5000",
    "http://nowhere.invalid",
    "sqlite:///mlflow.db",
    "sqlite:////nowhere/mlflow.db?timeout=3",
    "postgresql://me:geheim@host/db",
    "mysql+pymysql://me:geheim@host:3306/db",
    "databricks",
    "databricks://profile",
)


@pytest.mark.parametrize("uri", NEVER)
def test_what_can_never_work_is_one_line_without_password(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, uri)
    with pytest.raises(UserError) as caught:
        given_address()
    line = str(caught.value)
    assert line.startswith(f"{VARIABLE}: ")
    assert NEVER[uri] in line
    assert "geheim" not in line


@pytest.mark.parametrize("uri", PERHAPS)
def test_what_may_work_is_taken(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, uri)
    assert given_address() == uri.strip()
    assert os.listdir() == []
