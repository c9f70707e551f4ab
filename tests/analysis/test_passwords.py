"""No password of an MLflow server in what is shown: addresses, errors, whatever way they are written."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings, strategies

from ssvi.analysis.passwords import LONG, one_line, without_password, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("", ""),
        ("http://host:5000", "http://host:5000"),
        ("http://host:5000/mlflow/", "http://host:5000/mlflow/"),
        ("http://user:geheim@host:5000/mlflow", "http://host:5000/mlflow"),
        ("https://geheim@host", "https://host"),
        ("http://user:ge@heim@host", "http://host"),
        ("http://user:ge:heim@[::1]:5000/", "http://[::1]:5000/"),
        ("http://host/?password=geheim", "http://host/"),
        ("http://host?token=geheim#part", "http://host"),
        ("http://user:ge/heim@host", "http://***"),
        ("http://user:ge?heim@host", "http://***"),
        ("http://host/?password=geh@eim", "http://***"),
        ("postgresql+psycopg2://u:geheim@h:5432/db?sslpassword=geheim", "postgresql+psycopg2://h:5432/db"),
        ("sqlite:////home/me@work/mlflow.db?key=geheim", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite+pysqlcipher://:geheim@/x.db", "sqlite+pysqlcipher:///x.db"),
        ("user:geheim@host:5000", "host:5000"),
        ("some/folder", "some/folder"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://u:geheim@h:1", "API request to http://u:geheim@h:1/api/2.0/mlflow failed"),
        ("http://u:geheim@h:1/", "Invalid URL 'http://u:geheim@h:1//api'"),
        ("http://u:ge%68eim@h", "wrong password 'geheim' for u"),
        ("http://u:geheim@h", "http://u:%67%65%68%65%69%6D@h, that is geheim"),
        ("http://u:ge/heim@h", "port could not be cast to integer value as 'ge', in http://u:ge/heim@h/x"),
        ("http://U:Geheim@h", "cannot resolve geheim"),
        ("http://u:geh%5Ceim@h", "netloc 'u:geh\\\\eim@h' is invalid"),
        ("http://u:geh%C3%A9im@h", '"u:geh\\u00e9im"'),
        ("https://geheim@h", "token geheim is not known"),
        ("http://h/?password=geheim&x=1", "url: /?password=geheim&x=1/api (Caused by ...)"),
        ("http://h/?a=1;token=ge%68eim", "token geheim"),
        ("postgresql://u:geheim@h/db", "could not parse postgresql+psycopg2://u:geheim@h/db"),
        ("http://h", "redirected to https://other:geheim@elsewhere/x?sig=geheim"),
    ],
)
def test_a_text_is_shown_without_what_is_secret(uri: str, text: str) -> None:
    said = without_secrets(text, uri).lower()
    for secret in ("geheim", "%67%65%68%65%69%6d", "'ge'", "ge/heim", "geh\\\\eim", "geh\\u00e9im", "ge%68eim"):
        assert secret not in said


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_passwords_of_the_environment_are_hidden_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "geheim")
    assert without_secrets("Bearer geheim", "http://host") == "Bearer ***"


def test_short_secrets_leave_the_words_around_them() -> None:
    assert (
        without_secrets("port 5000 of h: password a of a user", "http://u:a@h")
        == "port 5000 of h: password *** of *** user"
    )


def test_what_is_no_secret_stays() -> None:
    text = "database is locked: sqlite:////home/me@work/mlflow.db, table runs"
    assert without_secrets(text, "sqlite:////home/me@work/mlflow.db") == text


WORD = strategies.text(strategies.characters(min_codepoint=33, max_codepoint=0x24F), min_size=LONG, max_size=12)


@settings(deadline=None)
@given(password=WORD, write=strategies.sampled_from([str, repr, quote, quote_plus, lambda p: quote(p, safe="")]))
def test_no_password_gets_through_however_it_is_written(password: str, write) -> None:
    assume(password not in "MLflow said: http://user:@host/api failed ***")
    uri = f"http://user:{quote(password, safe='')}@host"
    for text in (f"{write(password)}", f"http://user:{write(password)}@host/api failed", repr({"p": password})):
        assert password not in without_secrets(f"MLflow said: {text}", uri)
        assert quote(password, safe="") not in without_secrets(text, uri)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n first\nsecond"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "KeyError: 'x'"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b: No such file or directory"),
        (ModuleNotFoundError("No module named 'psycopg2'"), "No module named 'psycopg2'"),
        (
            RuntimeError("<http.client.Connection object at 0x7f12> broke."),
            "RuntimeError: http.client.Connection broke",
        ),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
