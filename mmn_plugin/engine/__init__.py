"""Training loop parts."""
from .hooks import *  # noqa: F403
