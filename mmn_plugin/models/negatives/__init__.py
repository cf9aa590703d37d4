"""Where negatives come from: this process, all processes, a memory of earlier videos."""

from .candidates import Candidates
from .gather import gather_candidates
from .memory_bank import MemoryBank
from .negative_pool import NegativePool
from .negative_source import NegativeSource
from .negatives import Negatives
from .normalised_text import normalised_text

__all__ = [
    'Candidates',
    'MemoryBank',
    'NegativePool',
    'NegativeSource',
    'Negatives',
    'gather_candidates',
    'normalised_text',
]
