"""The address of the MLflow server or database that a user wants filled: what can never work is said at once.

Standard library only: the workflow asks before it trains anything, and mlflow takes seconds to load.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from ssvi.analysis.passwords import without_password
from ssvi.errors import UserError, unknown

VARIABLE = "MLFLOW_TRACKING_URI"
SERVERS = ("http", "https")
# What MLflow has a store for, files left out; a driver may follow, as in mysql+pymysql.
SCHEMES = (*SERVERS, "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")
INSTEAD = "give a server (http://localhost:5000) or a database (sqlite:////folder/mlflow.db), or unset it."
PLUGINS = "mlflow.tracking_store"


def given_address() -> str:
    """MLFLOW_TRACKING_URI; empty where there is none, and the mirror is a file in the results folder.

    A server that is away, a driver that is not installed and a folder that is yet to be made are no reason to refuse.

    Raises:
        UserError: if nothing could ever be mirrored there, in a line without password.
    """
    uri = os.environ.get(VARIABLE, "").strip()
    if problem := _problem(uri):
        raise UserError(f"{VARIABLE}: {without_password(uri)!r} {problem}; {INSTEAD}")
    return uri


def _problem(uri: str) -> str:
    """Why an address can never work; empty if it may."""
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower().partition("+")[0]
    if uri in ("", "databricks", "databricks-uc"):
        return ""
    if "://" not in uri or scheme == "file":
        server = re.fullmatch(r"(\S+@)?[\w.-]+:\d+(/\S*)?", uri) is not None
        return "is a folder, which MLflow no longer writes to" + " (http:// is missing for a server)" * server
    plugins = {found.name for found in entry_points(group=PLUGINS)}
    if scheme not in SCHEMES and scheme not in plugins:
        raise unknown("scheme", scheme, SCHEMES, VARIABLE)
    if scheme == "sqlite":
        return _sqlite_problem(rest.partition("?")[0])
    return _server_problem(uri) if scheme in SERVERS else ""


def _sqlite_problem(path: str) -> str:
    if path in ("", "/", "/:memory:"):
        return "is a database in memory, which keeps nothing"
    if not path.startswith("/"):
        return "has two slashes where sqlite has three, or four before a whole path"
    if path.startswith("/~"):
        return "has a ~, which stands for no home folder there"
    return "is a folder, not a file of one" if Path(path[1:]).is_dir() else ""


def _server_problem(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        odd = re.search(r"[\s\x00-\x1f\x7f]", parts.netloc)
        port = parts.port  # raises if it is none
    except ValueError as error:
        return "is no address: Invalid IPv6 URL" if "IPv6" in str(error) else "is not a valid host or port"
    return "is not a valid host or port" if odd or not parts.hostname or port == 0 else ""
