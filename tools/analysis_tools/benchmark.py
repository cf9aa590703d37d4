"""Measure speed and memory of a config, its variants in turns.

    python tools/analysis_tools/benchmark.py CONFIG --task train --conv-mode dense,sparse

Shapes are the config's; features, sentences and (where the files are not at hand) annotations are
made up with the real distribution of sentences per video and words per sentence; the language
model has its real size and random weights. Nothing is downloaded. All variants run in turns, A B C
A B C ..., together with a matrix product and the config's bare convolution, so that ratios (within
a round) stand on a noisy machine. docs/performance.md says what each column means.
"""

import argparse
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from rich.console import Console

from mmn_plugin.apis.benchmark import TASKS, Benchmark, BenchmarkSettings, Variant, tables
from mmn_plugin.config import load_config, require_device
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file, write_json

CHOICES = {'--conv-mode': ('dense', 'sparse', 'auto'), '--dtype': ('fp32', 'tf32', 'bf16')}


def parse_args(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument('--task', choices=list(TASKS), default='train', help='default: train')
    parser.add_argument(
        '--batch-size', type=positive, help="videos of a batch (default: the config's, per GPU)"
    )
    parser.add_argument(
        '--conv-mode',
        type=listed('--conv-mode'),
        default=['dense'],
        help='one or more of dense,sparse,auto (default: dense)',
    )
    parser.add_argument(
        '--dtype',
        type=listed('--dtype'),
        default=['fp32'],
        help='one or more of fp32,tf32,bf16 (default: fp32)',
    )
    parser.add_argument(
        '--channels-last', action='store_true', help='each variant in this memory format as well'
    )
    parser.add_argument(
        '--compile', action='store_true', help='each variant through torch.compile as well'
    )
    parser.add_argument(
        '--frozen', action='store_true', help='train with the language model frozen'
    )
    parser.add_argument('--repeats', type=positive, default=5, help='timed rounds (default: 5)')
    parser.add_argument('--warmup', type=int, default=1, help='rounds before (default: 1)')
    parser.add_argument('--device', default='cpu', help='default: cpu')
    parser.add_argument('--threads', type=positive, help="on the CPU (default: PyTorch's)")
    parser.add_argument(
        '--annotations',
        help='annotation file whose sentences to count '
        "(default: the config's, else what is recorded of the benchmark)",
    )
    parser.add_argument(
        '--workers', type=int, default=4, help='of the data loader, task data (default: 4)'
    )
    parser.add_argument(
        '--step-ms',
        type=float,
        help='training step that the data loader has to '
        'keep up with, task data (default: measured)',
    )
    parser.add_argument(
        '--feature-rows',
        type=positive,
        help='rows of features of a made-up video, task data (default: 4 per segment)',
    )
    parser.add_argument('--no-memory', action='store_true', help='leave the peak memory out')
    parser.add_argument('--no-profile', action='store_true', help='leave the shares out')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=writable_file, help='also write all figures to this file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='values that replace those of the config',
    )
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def listed(option: str):
    """Parser of a comma-separated choice."""

    def parse(text: str) -> list[str]:
        values = list(dict.fromkeys(text.split(',')))
        if not set(values) <= set(CHOICES[option]):
            raise argparse.ArgumentTypeError(
                f'{text!r}: give one or more of {",".join(CHOICES[option])}'
            )
        return values

    return parse


def machine(device: str) -> dict:
    """What the figures are measured on."""
    lines = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    names = [line.split(':')[1].strip() for line in lines.splitlines() if 'model name' in line]
    cuda = torch.device(device).type == 'cuda'
    return dict(
        cpu=names[0] if names else platform.processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(device) if cuda else None,
        load=os.getloadavg()[0],
        python=platform.python_version(),
        torch=torch.__version__,
    )


def settings_of(args: argparse.Namespace) -> BenchmarkSettings:
    """From the command line to the benchmark's settings."""
    cfg = load_config(args.config, args.cfg_options)
    require_device(args.device)
    return BenchmarkSettings(
        cfg,
        Variant.product(args.conv_mode, args.dtype, args.channels_last, args.compile),
        args.batch_size or cfg.train_dataloader.batch_size,
        device=args.device,
        ann_file=args.annotations,
        frozen=args.frozen,
        workers=args.workers,
        step_seconds=args.step_ms and args.step_ms / 1000,
        feature_rows=args.feature_rows,
        seed=args.seed,
    )


def main(argv=None) -> int:
    """Measure and print; returns the exit code."""
    args = parse_args(argv)
    init_default_scope('mmaction')
    if args.threads:
        torch.set_num_threads(args.threads)
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 160)
    with plain_errors():
        settings = settings_of(args)
        benchmark = Benchmark(
            args.task,
            settings,
            args.repeats,
            args.warmup,
            not args.no_memory,
            not args.no_profile,
            say=lambda text: progress.print(text, highlight=False),
        )
        result = dict(
            task=args.task,
            config=args.config,
            batch_size=settings.batch_size,
            machine_info=machine(args.device),
            **benchmark.run(),
        )
    info = result['machine_info']
    console.print(
        f'{args.config}, task {args.task}, batches of {settings.batch_size}; '
        f'{info["gpu"] or info["cpu"]}, {info["threads"]} threads, load '
        f'{info["load"]:.1f}, torch {info["torch"]}',
        highlight=False,
    )
    for table in tables(result):
        console.print(table)
    if 'step_seconds' in result:
        console.print(
            f'waiting: beside a training step of {1000 * result["step_seconds"]:.0f} ms; '
            f'data {result["source"]}',
            highlight=False,
        )
    if args.json:
        write_json(result, args.json)
    return 0


if __name__ == '__main__':
    sys.exit(main())
