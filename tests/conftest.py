"""One thread a test process: the suite runs several processes side by side."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
