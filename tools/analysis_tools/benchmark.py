"""Measure speed and memory of a config, its variants in turns.

    python tools/analysis_tools/benchmark.py CONFIG --task train --conv-mode dense,sparse

Shapes are the config's; features, sentences and (where the files are not at hand) annotations are
made up with the real distribution of sentences per video and words per sentence; the language
model has its real size and random weights. Nothing is downloaded. All variants run in turns, A B C
A B C ..., together with a matrix product and the config's bare convolution, so that ratios (within
a round) stand on a noisy machine. docs/performance.md says what each column means.
"""

import argparse
import ctypes
import multiprocessing
import os
import platform
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from benchmark_tasks import TASKS, Benchmark, Subject, probes
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode

from mmn_plugin.cli.main import add_config_options
from mmn_plugin.config import require_device
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.models.necks import workspaces

CLEAR_PEAK = Path('/proc/self/clear_refs')
M_MMAP_THRESHOLD = -3
CHOICES = {'--conv-mode': ('dense', 'sparse', 'auto'), '--dtype': ('fp32', 'tf32', 'bf16')}
COLUMNS = {  # of a row's figures: header, and how to write it
    'seconds': ('time', lambda value: f'{1000 * value:,.4g} ms'),
    'spread': ('spread', lambda value: f'± {value:.1%}'),
    'ratio': ('faster', lambda value: f'{value:.2f}x'),
    'videos_per_second': ('videos/s', lambda value: f'{value:,.3g}'),
    'sentences_per_second': ('sentences/s', lambda value: f'{value:,.0f}'),
    'flops_per_second': ('operations', lambda value: f'{value / 1e9:,.3g} GFLOP/s'),
    'of_convolution_peak': ('of conv. peak', lambda value: f'{value:.0%}'),
    'of_product_peak': ('of product peak', lambda value: f'{value:.0%}'),
    'peak_mb': ('peak memory', lambda value: f'{value:,.0f} MB'),
    'seconds_per_batch': ('per batch', lambda value: f'{1000 * value:,.4g} ms'),
    'waiting': ('waiting', lambda value: f'{value:.1%}'),
}


def parse_args(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', help='path of a config, or the name of one of mmn_plugin')
    add('--task', choices=list(TASKS), default='train', help='default: train')
    add('--batch-size', type=positive, help="videos of a batch (default: the config's, per GPU)")
    for option, choices in CHOICES.items():
        text = f'one or more of {",".join(choices)} (default: {choices[0]})'
        add(option, type=partial(listed, choices=choices), default=[choices[0]], help=text)
    add('--frozen', action='store_true', help='train with the language model frozen')
    add('--repeats', type=positive, default=5, help='timed rounds (default: 5)')
    add('--warmup', type=int, default=1, help='rounds before (default: 1)')
    add('--device', default='cpu', help='default: cpu')
    add('--threads', type=positive, help="on the CPU (default: PyTorch's)")
    add('--annotations', help="whose sentences to count (default: the config's, else recorded)")
    add('--workers', type=int, default=4, help='of the data loader, task data (default: 4)')
    add('--step-ms', type=float, help='training step to wait beside, task data (default: none)')
    add('--feature-rows', type=positive, help='of a made-up video (default: 4 per segment)')
    add('--no-memory', action='store_true', help='leave the peak memory out')
    add('--no-profile', action='store_true', help='leave operations and shares out')
    add('--seed', type=int, default=0)
    add('--json', type=writable_file, help='also write all figures to this file')
    add_config_options(parser)
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """A whole number above 0."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def listed(text: str, choices: tuple[str, ...]) -> list[str]:
    """Comma-separated choices."""
    values = list(dict.fromkeys(text.split(',')))
    if not set(values) <= set(choices):
        raise argparse.ArgumentTypeError(f'{text!r}: give one or more of {",".join(choices)}')
    return values


def interleave(subjects: list[Subject], repeats: int, warmup: int, say=lambda text: None) -> None:
    """Run A B C ... A B C ..., filling ``seconds`` of each subject, once per repeat.

    Whatever slows the machine for a while slows all subjects, and ratios are those of a round.
    """
    for turn in range(warmup + repeats):
        for subject in subjects:
            began = timer()  # waits for the current device
            subject()
            seconds = timer() - began
            if turn >= warmup:
                subject.seconds.append(seconds)
            say(f'round {turn + 1 - warmup} of {repeats}: {subject.name} {seconds:.3f} s')


def operations(subject: Subject) -> int:
    """Floating-point operations of its convolutions and matrix products, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        subject()
    return counter.get_total_flops()


def shares(subject: Subject) -> dict[str, float]:
    """Seconds of each phase of one run, waited for at both ends; ``total`` among them."""
    seconds = defaultdict(float)

    def timed(name: str, run, *args, **kwargs):
        began = timer()  # waits for the current device
        result = run(*args, **kwargs)
        seconds[name] += timer() - began
        return result

    with ExitStack() as stack:
        for owner, method, name in subject.phases:
            replacement = partial(timed, name, getattr(owner, method))
            stack.enter_context(mock.patch.object(owner, method, replacement))
        timed('total', subject)
    return dict(seconds)


def peak_growth(run: Callable[[], object], device: str = 'cpu') -> float:
    """Growth of memory during a run, in MB, above what was there before it.

    On a CPU the process's resident memory, else what the allocator of the device gave out.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20

    def peak() -> int:
        return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1])

    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process keeps would hide growth
    CLEAR_PEAK.write_text('5')
    before = peak()
    run()
    return (peak() - before) / 2**10


def peak_of(args: argparse.Namespace, threads: int) -> float:
    """Peak memory of the last of a task's steps, in a process that has done nothing else.

    Weights, gradients and the optimizer's state exist before it; cuDNN has chosen its algorithms.
    """
    torch.set_num_threads(threads)
    if torch.device(args.device).type == 'cpu':  # or freed memory stays in the process and hides
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    prepare()
    with current_device(args.device):
        subject = TASKS[args.task](Benchmark(args, keep_gradients=True))[-1]
        subject()
        workspaces.clear()  # kept from step to step, but part of what a step takes
        return peak_growth(subject, args.device)


def current_device(device: str):
    """Context in which events, streams and pinned memory belong to this device, if it is CUDA's."""
    return torch.cuda.device(device) if torch.device(device).type == 'cuda' else nullcontext()


def add_operations(subject: Subject, row: dict, peaks: list[dict]) -> None:
    """Operations of a step, and how near it comes to the machine's peaks."""
    row['flops'] = operations(subject)
    row['flops_per_second'] = row['flops'] / row['seconds']
    for peak in peaks:
        if peak['dtype'] == row['dtype']:
            row[f'of_{peak["group"]}_peak'] = row['flops_per_second'] / peak['flops_per_second']


def prepare() -> None:
    """Set up MMEngine: its scope, and no line in the log per parameter and per evaluation."""
    init_default_scope('mmaction')
    MMLogger.get_current_instance().setLevel('WARNING')


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict:
    """All figures: ``rows``, ``machine`` (the peaks), and ``phases`` (seconds by row)."""
    bench = Benchmark(args)
    subjects = TASKS[args.task](bench)
    of_models = args.task in ('train', 'test')
    machine = probes(bench) if of_models else []
    interleave([*subjects, *machine], args.repeats, args.warmup, say)
    first = {}
    for subject in [*subjects, *machine]:
        first.setdefault(subject.group, subject)
    rows, peaks = ([s.row(first[s.group]) for s in part] for part in (subjects, machine))
    for probe, peak in zip(machine, peaks, strict=True):
        add_operations(probe, peak, [])
    phases = {}
    for subject, row in zip(subjects, rows, strict=True):
        if 'batches' in row:
            row['seconds_per_batch'] = row['seconds'] / row['batches']
        if subject.phases and not args.no_profile:
            say(f'profiling {row["name"]}')
            phases[row['name']] = shares(subject)
            if of_models:
                add_operations(subject, row, peaks)
        if of_models and row['videos'] == bench.batch_size and can_measure(args):
            say(f'measuring the memory of {row["name"]}')
            alone = dict(vars(args), conv_mode=[row['conv_mode']], dtype=[row['dtype']])
            with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
                job = pool.submit(peak_of, argparse.Namespace(**alone), torch.get_num_threads())
                row['peak_mb'] = job.result()
    return dict(batch_size=bench.batch_size, rows=rows, machine=peaks, phases=phases)


def can_measure(args: argparse.Namespace) -> bool:
    """Whether the peak memory is asked for, and this machine tells it."""
    return not args.no_memory and (args.device != 'cpu' or CLEAR_PEAK.exists())


def show(result: dict, console: Console) -> None:
    """One table per group of rows, one of the machine, one of the phases."""
    groups = {}
    for row in result['rows']:
        groups.setdefault(row['group'], []).append(row)
    groups['machine, in the same rounds'] = result['machine']
    for title, rows in groups.items():
        shown = {key: column for key, column in COLUMNS.items() if any(key in row for row in rows)}
        table = Table('', title=title, title_justify='left')
        for header, _ in shown.values():
            table.add_column(header, justify='right')
        for row in rows:
            cells = (write(row[key]) if key in row else '' for key, (_, write) in shown.items())
            table.add_row(row['name'], *cells)
        if rows:
            console.print(table)
    names = [name for name in next(iter(result['phases'].values()), ()) if name != 'total']
    table = Table('', *names, 'other', title='share of a step (in steps of their own)')
    for label, seconds in result['phases'].items():
        parts = [seconds[name] / seconds['total'] for name in names]
        table.add_row(label, *(f'{part:.1%}' for part in (*parts, 1 - sum(parts))))
    if names:
        console.print(table)


def machine_info(device: str) -> dict:
    """What the figures are measured on."""
    cpu = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.*)', cpu.read_text()) if cpu.exists() else None
    return dict(
        cpu=found[1] if found else platform.processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(device) if device != 'cpu' else None,
        load=os.getloadavg()[0],
        python=platform.python_version(),
        torch=torch.__version__,
    )


def main(argv=None) -> int:
    """Measure and print; returns the exit code."""
    args = parse_args(argv)
    prepare()
    if args.threads:
        torch.set_num_threads(args.threads)
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 160)
    with plain_errors(), current_device(require_device(args.device)):
        result = measure(args, lambda text: progress.print(text, highlight=False))
    info = machine_info(args.device)
    result = dict(task=args.task, config=args.config, machine_info=info, **result)
    console.print(
        f'{args.config}, task {args.task}, batches of {result["batch_size"]}; '
        f'{info["gpu"] or info["cpu"]}, {info["threads"]} threads, load {info["load"]:.1f}, '
        f'torch {info["torch"]}',
        highlight=False,
    )
    show(result, console)
    if args.json:
        write_json(result, args.json)
    return 0


if __name__ == '__main__':
    sys.exit(main())
