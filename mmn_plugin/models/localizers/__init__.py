"""Localizers: the wiring of whole methods."""
from .mmn import MMN

__all__ = ['MMN']
