"""Speed and memory of a config's training, prediction, evaluation, data loader and text."""

from .benchmark import TASKS, Benchmark
from .benchmark_report import tables
from .benchmark_settings import BenchmarkSettings
from .encoder_work import EncoderWork
from .interleave import interleave, ratio, spread, timed
from .subject import Subject
from .variant import Variant

__all__ = [
    'TASKS',
    'Benchmark',
    'BenchmarkSettings',
    'EncoderWork',
    'Subject',
    'Variant',
    'interleave',
    'ratio',
    'spread',
    'tables',
    'timed',
]
