"""Faults of a small library, those of the tests, each tried more often."""

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from .running import ROOT
from .tables import table

SHOWN = 3  # kinds of answers in the table; all are in the file


def library_faults() -> dict:
    """Every fault, on the disk: what was found in each trial, and which faults ``failed``."""
    sys.path.insert(0, str(ROOT / 'tests'))  # the faults are those of the tests
    from helpers.fault_table import FAULTS, Ground

    torch.set_num_threads(1)  # a forked process would wait for threads that it does not have
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        for what, fault in FAULTS.items():
            outcomes = list(outcomes_of(fault.trials(ground, fault.times)))
            rows.append(dict(what=what, outcomes=outcomes))
            print(f'{what}: {told(rows[-1])}', flush=True)
    failed = [row['what'] for row in rows if not all(one['good'] for one in row['outcomes'])]
    return dict(rows=rows, failed=failed)


def outcomes_of(trials: Iterator) -> Iterator[dict]:
    """What each trial ``found``, or the first line of its error, and whether that is ``good``."""
    while True:
        try:
            trial = next(trials, None)
            if trial is None:
                return
            yield dict(good=True, found=trial())
        except Exception as error:
            yield dict(good=False, found=f'{type(error).__name__}: {error}'.splitlines()[0])


def told(row: dict) -> str:
    """The kinds of answers, the frequent ones first; those that differ in numbers are one kind."""
    kinds, first = Counter(), {}
    for one in row['outcomes']:
        kind = '' if one['good'] else 'FAILED: '
        kind += re.sub(r'\d+', 'N', one['found'])
        kinds[kind] += 1
        first.setdefault(kind, one['found'] if one['good'] else f'FAILED: {one["found"]}')
    # failures are never among those that are left out
    ranked = sorted(kinds, key=lambda kind: (not kind.startswith('FAILED'), -kinds[kind]))
    shown = ranked[: max(SHOWN, sum(kind.startswith('FAILED') for kind in ranked))]
    texts = [first[kind] + (f' ({kinds[kind]})' if len(ranked) > 1 else '') for kind in shown]
    if left := len(ranked) - len(shown):
        texts.append(f'and {left} more')
    return '; '.join(texts)


def render_library_faults(result: dict) -> str:
    """A row per fault."""
    rows = []
    for row in result['rows']:
        good = sum(one['good'] for one in row['outcomes'])
        said = told(row).replace('|', '\\|').replace('\n', ' ')
        rows.append([row['what'], f'{good} of {len(row["outcomes"])}', said])
    return table(['what was done', 'good', 'what was found'], rows)
