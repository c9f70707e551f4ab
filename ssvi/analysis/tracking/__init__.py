"""A mirror of the runs in MLflow. The files stay the truth; this is the only package that imports mlflow.

`mirror` brings finished runs over, once; `serve` does so again and again, runs in training included, and
shows them. The tag `ssvi.digest` is set last and says that an MLflow run is whole. To one that is, things are only
added (what earlier versions did not mirror, its network), and it is renamed while it has the name that a mirror gave
it, so notes, tags and names that people give it stay. Means over seeds are made anew, and keep notes and tags.
"""

from __future__ import annotations

import os

# MLflow checks at import whether it may send usage data; a mirror has nothing to say to the outside.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Whatever somebody set it to: a run's address has the password of the server's in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

from ssvi.analysis.tracking.live import Plan, Watcher
from ssvi.analysis.tracking.mirror import MirrorResult, mirror
from ssvi.analysis.tracking.register import register
from ssvi.analysis.tracking.reports import report_files
from ssvi.analysis.tracking.store import Unavailable, tracking_uri
from ssvi.analysis.tracking.ui import serve

__all__ = [
    "MirrorResult",
    "Plan",
    "Unavailable",
    "Watcher",
    "mirror",
    "register",
    "report_files",
    "serve",
    "tracking_uri",
]
