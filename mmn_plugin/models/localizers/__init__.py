"""Localizers: the wiring of whole methods."""

from .base_localizer import BaseLocalizer
from .mmn import MMN
from .mscl import MSCL
from .zero_shot import ZeroShotGrounding

__all__ = ['MMN', 'MSCL', 'BaseLocalizer', 'ZeroShotGrounding']
