"""A mirror of the runs in MLflow. The files stay the truth; this is the only package that imports mlflow.

`mirror` brings finished runs over, once; `serve` does so again and again, runs in training included, and
shows them. A run that is mirrored whole is never touched again, so notes and tags that people add to it stay.
The tag `ssvi.digest` is set last and says that an MLflow run is whole.
"""

from __future__ import annotations

import os

# MLflow checks at import whether it may send usage data; a mirror has nothing to say to the outside.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Whatever somebody set it to: a run's address has the password of the server's in it.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

from ssvi.analysis.tracking.live import Plan, Watcher
from ssvi.analysis.tracking.mirror import MirrorResult, mirror, report_files
from ssvi.analysis.tracking.store import Unavailable, tracking_uri
from ssvi.analysis.tracking.ui import serve

__all__ = ["MirrorResult", "Plan", "Unavailable", "Watcher", "mirror", "report_files", "serve", "tracking_uri"]
