"""Localizers: the wiring of whole methods."""

from .mmn import MMN
from .mscl import MSCL

__all__ = ['MMN', 'MSCL']
