"""All faults of libraries, and how often each is tried."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from . import library_faults as faults
from . import library_input as wrong
from .library_faults import CHANGES, Ground, Trial


@dataclass(frozen=True)
class Fault:
    """Something that is done to a library.

    Attributes:
        trials (Callable): The trials, of a ground and how often, or how much.
        few (int): How often in the suite.
        times (int): How often for the table.
    """

    trials: Callable[[Ground, int], Iterator[Trial]]
    few: int
    times: int


FAULTS = {
    **{
        f'`{change}` killed before one of its calls of the system or of SQLite': Fault(
            partial(faults.kills, change), 1, 30
        )
        for change in CHANGES
    },
    'a process that adds videos one by one killed at any time': Fault(faults.kills_in_time, 2, 30),
    'two processes add, remove and compact, a third one searches': Fault(faults.two_writers, 1, 10),
    'a writer waits in vain for another one': Fault(faults.waiting_in_vain, 1, 1),
    **{
        f'`{change}` on a full disk: files can grow up to a drawn size': Fault(
            partial(faults.full_disk, change), 2, 30
        )
        for change in CHANGES
    },
    'a read-only folder; one in which a commit was killed': Fault(faults.readonly_folder, 2, 2),
    'a file of moments cut off anywhere': Fault(faults.truncated, 2, 30),
    'a bit flipped in a file of moments': Fault(partial(faults.flipped, 'segments/*'), 5, 100),
    'a bit flipped in `library.sqlite`': Fault(partial(faults.flipped, faults.DATABASE), 60, 300),
    'a bit flipped in a file of the model': Fault(partial(faults.flipped, 'model/*'), 3, 30),
    'a model of other settings, of other weights, features of another extractor': Fault(
        wrong.other_model, 3, 3
    ),
    'ids with quotes, slashes, line ends, in other scripts': Fault(
        wrong.strange_ids, 4, len(wrong.STRANGE)
    ),
    '`--where` with an injection, or what is no expression': Fault(
        wrong.injections, 3, len(wrong.ATTACKS)
    ),
    'an empty library': Fault(wrong.empty_library, 1, 1),
    'filters that keep no video, a page that is not there': Fault(wrong.nothing_fits, 11, 11),
    'many sentences at once': Fault(wrong.many_sentences, 600, 10_000),
}
