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
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from made_up_data import made_up_batch, offline_config
from mmaction.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import profile
from torch.utils.benchmark import Measurement, TaskSpec, timer
from torch.utils.flop_counter import FlopCounterMode

from mmn_plugin.cli.main import count, tool_parser
from mmn_plugin.config import load_config, require_device, set_tf32
from mmn_plugin.engine import FreezeLanguageModelHook
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.models.necks import workspaces

CLEAR_PEAK = Path('/proc/self/clear_refs')
M_MMAP_THRESHOLD = -3
CHOICES = {
    '--conv-mode': ('dense', 'sparse', 'strips', 'auto'),
    '--dtype': ('fp32', 'tf32', 'bf16'),
}
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
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__, config=True)
    add = parser.add_argument
    add('--task', choices=('train', 'test'), default='train', help='default: train')
    add('--batch-size', type=count, help="videos of a batch (default: the config's, per GPU)")
    for option, choices in CHOICES.items():
        text = f'one or more of {",".join(choices)} (default: {choices[0]})'
        add(option, type=partial(listed, choices=choices), default=[choices[0]], help=text)
    add('--frozen', action='store_true', help='train with the language model frozen')
    add('--repeats', type=count, default=5, help='timed rounds, after one that is not (default: 5)')
    add('--device', default='cpu', help='default: cpu')
    add('--no-memory', action='store_true', help='leave the peak memory out')
    add('--profile', type=count, metavar='N', help='print the N operators that take longest')
    add('--json', type=writable_file, help='also write all figures to this file')
    return parser.parse_args()


def listed(text: str, choices: tuple[str, ...]) -> list[str]:
    """Comma-separated choices."""
    values = list(dict.fromkeys(text.split(',')))
    if not set(values) <= set(choices):
        raise argparse.ArgumentTypeError(f'{text!r}: give one or more of {",".join(choices)}')
    return values


@dataclass
class Subject:
    """What is timed: one row.

    Attributes:
        name (str): What is run.
        run (Callable): Does it once.
        group (str): Rows of a group are compared with the group's first. Defaults to ''.
        dtype (str): ``'fp32'``, ``'tf32'`` (CUDA: products of float32 with rounded factors) or
            ``'bf16'`` (autocast). Defaults to ``'fp32'``.
        counts (dict): How many ``videos`` and ``sentences`` a run works through. Defaults to none.
        seconds (list[float]): One per repeat.
    """

    name: str
    run: Callable[[], object]
    group: str = ''
    dtype: str = 'fp32'
    counts: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        """Run once, in its precision."""
        set_tf32(self.dtype == 'tf32')
        self.run()

    def row(self, first: 'Subject') -> dict:
        """Its figures, compared with the first of its group."""
        measured = Measurement(1, self.seconds, TaskSpec(self.name, ''))
        rounds = zip(first.seconds, self.seconds, strict=True)
        row = dict(name=self.name, group=self.group, dtype=self.dtype, seconds=measured.median)
        row |= dict(spread=measured.iqr / 2 / measured.median, all_seconds=self.seconds)
        row['ratio'] = statistics.median(before / own for before, own in rounds)
        for name, number in self.counts.items():
            row |= {name: number, f'{name}_per_second': number / measured.median}
        return row


class Benchmark:
    """What is run of a config.

    Args:
        args (argparse.Namespace): The command line.
        keep_gradients (bool): Set gradients to zero after a step rather than free them. Defaults to
            False.

    Raises:
        ValueError: If the device has no such precision, or the config cannot be measured here.
    """

    def __init__(self, args: argparse.Namespace, keep_gradients: bool = False):
        self.args, self.keep_gradients = args, keep_gradients
        self.device = torch.device(require_device(args.device))
        if 'tf32' in args.dtype and self.device.type != 'cuda':
            raise InputError(f'--dtype tf32 is for CUDA, not for {self.device}')
        self.cfg = offline_config(load_config(args.config, args.cfg_options))
        self.has_map = 'grid' in self.cfg.model
        if not self.has_map and args.conv_mode != ['dense']:
            name = self.cfg.model.neck.type
            raise InputError(f'--conv-mode: the convolutions of {name} are dense')
        if step := (self.cfg.model.head.get('negatives') or {}).get('videos_per_step'):
            self.cfg.train_dataloader.batch_size = step // vars(args).get('gpus', 1)
        self.batch_size = args.batch_size or self.cfg.train_dataloader.batch_size
        torch.backends.cudnn.benchmark = self.cfg.get('env_cfg', {}).get('cudnn_benchmark', False)
        torch.manual_seed(0)

    def subjects(self) -> list[Subject]:
        """The variants of the task."""
        self.model = MODELS.build(self.cfg.model).to(self.device)
        return getattr(self, self.args.task)(self.model)

    def train(self, model: nn.Module) -> list[Subject]:
        """A step of training: preprocessing, forward, backward, clipping, the optimizer's step."""
        keys = ('constructor', 'optimizer', 'clip_grad', 'paramwise_cfg')  # but not the precision
        cfg = {key: value for key, value in self.cfg.optim_wrapper.items() if key in keys}
        optimizer = build_optim_wrapper(model.train(), dict(cfg, type='OptimWrapper'))
        self.optimizer = optimizer
        FreezeLanguageModelHook.freeze(model, self.args.frozen or model.text_encoder.frozen)

        def step(batch: dict, autocast: torch.autocast) -> None:
            with optimizer.optim_context(model), autocast:
                losses = model(**model.data_preprocessor(batch, True), mode='loss')
            total, _ = model.parse_losses(losses)
            optimizer.update_params(total, zero_kwargs=dict(set_to_none=not self.keep_gradients))

        return self.variants(model, step, 'training step', self.batch_size)

    def test(self, model: nn.Module) -> list[Subject]:
        """Prediction, from features to ranked moments: of one video, and of a batch."""
        model.eval()

        @torch.no_grad()
        def step(batch: dict, autocast: torch.autocast) -> None:
            with autocast:
                model.test_step(batch)

        sizes = sorted({1, self.batch_size})
        groups = {size: f'prediction, {size} video{"s" * (size > 1)}' for size in sizes}
        return [row for size in sizes for row in self.variants(model, step, groups[size], size)]

    def variants(self, model, step, group: str, num_videos: int) -> list[Subject]:
        """``step(batch, autocast)`` with each way to convolve and in each precision."""
        batch = made_up_batch(self.cfg, self.args.task, num_videos)

        def run(mode: str, dtype: str) -> None:
            if self.has_map:
                model.neck.encoder.conv_mode = mode
            step(batch, torch.autocast(self.device.type, torch.bfloat16, dtype == 'bf16'))

        sentences = sum(len(sample.sentences) for sample in batch['data_samples'])
        counts = dict(videos=num_videos, sentences=sentences)
        return [
            Subject(f'{mode} {dtype}', partial(run, mode, dtype), group, dtype, counts)
            for dtype in self.args.dtype
            for mode in self.args.conv_mode
        ]

    def probes(self) -> list[Subject]:
        """What the machine can do: a matrix product, and the moment encoder's bare convolution."""
        training, neck, subjects = self.args.task == 'train', self.cfg.model.neck, []
        size = 8192 if self.device.type == 'cuda' else 2048
        for dtype in self.args.dtype:
            kind = torch.bfloat16 if dtype == 'bf16' else torch.float32
            make = partial(torch.randn, device=self.device, dtype=kind)
            run = partial(torch.matmul, make(size, size), make(size, size))
            subjects.append(Subject(f'matrix product {dtype}', run, 'product', dtype))
            if self.has_map:
                side = self.cfg.model.grid.num_clips + neck.kernel_size - 1
                shape = neck.channels, neck.channels, neck.kernel_size, neck.kernel_size
                inputs = make(self.batch_size, neck.channels, side, side, requires_grad=training)
                run = partial(convolve, inputs, make(shape, requires_grad=training))
                subjects.append(Subject(f'convolution {dtype}', run, 'convolution', dtype))
        return subjects


def convolve(inputs: torch.Tensor, weight: torch.Tensor) -> None:
    """A convolution, and its backward where gradients are asked for."""
    result = F.conv2d(inputs, weight)
    if weight.requires_grad:
        torch.autograd.grad(result, (inputs, weight), torch.ones_like(result))


def interleave(subjects: list[Subject], repeats: int, say=lambda text: None) -> None:
    """Run A B C ... A B C ..., filling ``seconds`` of each subject, once per repeat after a first.

    Whatever slows the machine for a while slows all subjects, and ratios are those of a round.
    """
    for turn in range(1 + repeats):
        for subject in subjects:
            began = timer()  # waits for the current device
            subject()
            seconds = timer() - began
            if turn:
                subject.seconds.append(seconds)
            say(f'round {turn} of {repeats}: {subject.name} {seconds:.3f} s')


def add_operations(subject: Subject, row: dict, peaks: list[dict] = ()) -> None:
    """Operations of a step as PyTorch counts them, and how near it comes to the machine's peaks."""
    with FlopCounterMode(display=False) as counter:
        subject()
    row['flops'] = counter.get_total_flops()
    row['flops_per_second'] = row['flops'] / row['seconds']
    for peak in peaks:
        if peak['dtype'] == row['dtype']:
            row[f'of_{peak["group"]}_peak'] = row['flops_per_second'] / peak['flops_per_second']


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
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process keeps would hide growth
    CLEAR_PEAK.write_text('5')
    before = peak_mb()
    run()
    return peak_mb() - before


def peak_mb() -> float:
    """Peak memory of this process; `getrusage` would give its parent's if that is larger."""
    return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) / 2**10


def alone(function: Callable, *arguments):
    """What a function returns in a process of its own, whose memory is the function's alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()


def cpu_name() -> str:
    """What the CPU calls itself."""
    cpu = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    return cpu[1] if cpu else platform.processor()


def peak_of(args: argparse.Namespace) -> float:
    """Peak memory of the last of a task's steps, in a process that has done nothing else.

    Weights, gradients and the optimizer's state exist before it; cuDNN has chosen its algorithms.
    """
    if torch.device(args.device).type == 'cpu':  # or freed memory stays in the process and hides
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    with prepared(args.device):
        subject = Benchmark(args, keep_gradients=True).subjects()[-1]
        subject()
        workspaces.clear()  # kept from step to step, but part of what a step takes
        return peak_growth(subject, args.device)


def prepared(device: str):
    """MMEngine's scope, and no line of its log per parameter and evaluation; gives a context.

    In it events, streams and pinned memory belong to this device, if it is CUDA's.
    """
    init_default_scope('mmaction')
    MMLogger.get_current_instance().setLevel('WARNING')
    return torch.cuda.device(device) if torch.device(device).type == 'cuda' else nullcontext()


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict:
    """All figures: ``rows``, and ``machine``, its peaks."""
    bench = Benchmark(args)
    subjects, machine = bench.subjects(), bench.probes()
    interleave([*subjects, *machine], args.repeats, say)
    first = {}
    for subject in [*subjects, *machine]:
        first.setdefault(subject.group, subject)
    rows, peaks = ([s.row(first[s.group]) for s in part] for part in (subjects, machine))
    for probe, peak in zip(machine, peaks, strict=True):
        add_operations(probe, peak)
    for subject, row in zip(subjects, rows, strict=True):
        say(f'counting the operations of {row["name"]}')
        add_operations(subject, row, peaks)
        if args.profile:
            with profile() as profiled:
                subject()
            row['profile'] = profiled.key_averages().table('self_cpu_time_total', args.profile)
        can_measure = args.device != 'cpu' or CLEAR_PEAK.exists()
        if not args.no_memory and row['videos'] == bench.batch_size and can_measure:
            say(f'measuring the memory of {row["name"]}')
            one = dict(vars(args), conv_mode=row['name'].split()[:1], dtype=[row['dtype']])
            row['peak_mb'] = alone(peak_of, argparse.Namespace(**one))
    return dict(batch_size=bench.batch_size, rows=rows, machine=peaks)


def show(result: dict, console: Console) -> None:
    """One table per group of rows, one of the machine, and profiles."""
    groups = defaultdict(list)
    for row in result['rows']:
        groups[row['group']].append(row)
    groups['machine, in the same rounds'] = result['machine']
    for title, rows in groups.items():
        shown = {key: column for key, column in COLUMNS.items() if any(key in row for row in rows)}
        table = Table('', title=title, title_justify='left')
        for header, _ in shown.values():
            table.add_column(header, justify='right')
        for row in rows:
            cells = (write(row[key]) if key in row else '' for key, (_, write) in shown.items())
            table.add_row(row['name'], *cells)
        console.print(table)
    for row in result['rows']:
        if 'profile' in row:
            console.print(row['name'], row['profile'], sep='\n', soft_wrap=True)


def main() -> None:
    """Measure and print."""
    args = parse_args()
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 160)
    with plain_errors(), prepared(require_device(args.device)):
        result = measure(args, partial(progress.print, highlight=False))
    name = cpu_name() if args.device == 'cpu' else torch.cuda.get_device_name(args.device)
    machine = f'{name}, {torch.get_num_threads()} threads, torch {torch.__version__}'
    result = dict(task=args.task, config=args.config, measured_on=machine, **result)
    title = f'{args.config}, task {args.task}, batches of {result["batch_size"]}; {machine}'
    console.print(f'{title}; load {os.getloadavg()[0]:.1f}', highlight=False)
    show(result, console)
    if args.json:
        write_json(result, args.json)


if __name__ == '__main__':
    main()
