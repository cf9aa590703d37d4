"""Time several subjects in turns, so that their ratios stand on a noisy machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

from .subject import Subject


def interleave(
    subjects: Sequence[Subject],
    repeats: int,
    warmup: int = 1,
    device: str = 'cpu',
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Run A B C ... A B C ..., filling ``seconds`` of each subject, once per repeat.

    Whatever slows the machine for a while slows all subjects, and `ratio` compares them within a
    round only.

    Args:
        subjects (Sequence[Subject]): What to time.
        repeats (int): Timed rounds.
        warmup (int): Rounds before them. Defaults to 1.
        device (str): Where the work is done. On CUDA, events around each run are read after it
            is over. Defaults to ``'cpu'``.
        say (Callable): Told of every round. Defaults to nothing.
    """
    for subject in subjects:
        subject.seconds.clear()
    for turn in range(warmup + repeats):
        for subject in subjects:
            seconds = timed(subject.run, device)
            if turn >= warmup:
                subject.seconds.append(seconds)
            say(f'round {turn + 1 - warmup} of {repeats}: {subject.name} {seconds:.3f} s')


def timed(run: Callable[[], object], device: str = 'cpu') -> float:
    """Seconds that one run takes, to the end of the device's work."""
    if torch.device(device).type != 'cuda':
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    with current_device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1000


def current_device(device: str):
    """Context in which events, streams and pinned memory belong to this device, where it is CUDA's.

    They go to the process's current device, the first one, whatever the tensors are on.
    """
    return torch.cuda.device(device) if torch.device(device).type == 'cuda' else nullcontext()


def median(values: Sequence[float]) -> float:
    """Median."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, relative to the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method='inclusive')
    return (third - first) / 2 / median(values)


def ratio(subject: Subject, first: Subject) -> float:
    """How many times as fast as the first: the median over the rounds."""
    return median([a / b for a, b in zip(first.seconds, subject.seconds, strict=True)])
