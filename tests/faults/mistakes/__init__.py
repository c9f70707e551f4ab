"""Every mistake of a user that is tried, a row each: what is typed, and the one line that has to answer it."""

from mistakes.commands import COMMANDS
from mistakes.configs import CONFIGS
from mistakes.images import IMAGES
from mistakes.run_folders import ARTIFACTS, CHECKPOINTS

TABLE = [*CONFIGS, *COMMANDS, *IMAGES, *CHECKPOINTS, *ARTIFACTS]
