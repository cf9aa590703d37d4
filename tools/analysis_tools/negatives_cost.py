"""Measure what negatives cost: memory and time of the contrastive losses, forward and backward.

    python tools/analysis_tools/negatives_cost.py [--videos 8 48 384 1536] [--gathered]

One process's batch, by default on ActivityNet Captions' grid, against the moments and sentences
of so many videos, as a memory bank holds them (or, with --gathered, as other processes send them,
with gradients). "Held" are these embeddings themselves, and the gradients of those that have any:
they grow with the negatives. "Extra" is what computing the losses takes beyond that: once there
is a chunk of similarities to fill, it must not grow. Exit code 1 if it does.
"""

import argparse
import ctypes
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import mmn_plugin  # noqa: F401
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.models import Candidates, NegativePool, Negatives
from mmn_plugin.models.losses import MutualMatchingLoss
from mmn_plugin.structures import MomentGrid

SETTINGS = dict(
    num_positive=1,
    negative_iou=0.5,
    sentence_removal_iou=0.5,
    margin=0.3,
    temperature_video=0.1,
    temperature_sentence=0.1,
)
CLEAR_PEAK = Path('/proc/self/clear_refs')
M_MMAP_THRESHOLD = -3
NOISE_MB = 4  # what allocators and libraries take or leave


def parse_args(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--videos',
        type=int,
        nargs='+',
        default=[8, 48, 384, 1536],
        help="videos' worth of negatives (default: 8 48 384 1536)",
    )
    parser.add_argument('--batch', type=int, default=8, help='videos of the batch (default: 8)')
    parser.add_argument('--sentences', type=int, default=4, help='per video (default: 4)')
    parser.add_argument('--num-clips', type=int, default=64, help='of the grid (default: 64)')
    parser.add_argument(
        '--pooling-counts',
        type=int,
        nargs='+',
        default=[15, 8, 8],
        help='of the grid (default: 15 8 8)',
    )
    parser.add_argument('--channels', type=int, default=256, help='embedding size (default: 256)')
    parser.add_argument('--gathered', action='store_true', help='negatives have gradients')
    parser.add_argument('--chunk-elements', type=int, default=2**22, help='default: 2**22')
    parser.add_argument('--device', default='cpu', help='default: cpu')
    parser.add_argument('--threads', type=int, default=1, help='on the CPU (default: 1)')
    parser.add_argument(
        '--max-growth',
        type=float,
        default=1.5,
        help=(
            'bound on the extra memory of the most negatives, relative to that of the first '
            'that fill a chunk (default: 1.5)'
        ),
    )
    parser.add_argument('--json', type=writable_file, help='also write the figures to this file')
    return parser.parse_args(argv)


def peak_mb(device: str) -> float:
    """Largest memory since ``clear_peak``, in MB."""
    if device != 'cpu':
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 2**10


def clear_peak(device: str) -> float:
    """Let the peak begin at what is in use now; returns that, in MB."""
    if device != 'cpu':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        CLEAR_PEAK.write_text('5')
    return peak_mb(device)


def embeddings(args: argparse.Namespace, videos: int, first: int, gradient: bool) -> Candidates:
    """So many videos, named from ``first`` on."""
    grid = MomentGrid(args.num_clips, args.pooling_counts)
    count, device = videos * args.sentences, args.device
    moments = torch.empty(videos, grid.num_moments, args.channels, device=device)
    for video in moments:  # one by one, so that this leaves no peak behind
        video.copy_(F.normalize(torch.randn_like(video), dim=-1))
    sentences = F.normalize(torch.randn(count, args.channels, device=device), dim=-1)
    truth = torch.rand(count, 2, device=device).cumsum(1) * 10
    return Candidates(
        moments.requires_grad_(gradient),
        sentences.requires_grad_(gradient),
        truth,
        np.repeat(np.arange(videos), args.sentences),
        [str(first + v) for v in range(videos)],
        iou=grid.iou(truth, 30.0) if not first else None,
    )


def measure(args: argparse.Namespace, videos: int) -> dict[str, float]:
    """Figures of one number of videos, in a process that has done nothing else."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.device == 'cpu':  # or freed memory stays in the process, and hides in the peak
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**16)
        libc.malloc_trim(0)  # what the parent process had freed would be used again unseen
    own = embeddings(args, args.batch, 0, gradient=True)
    rest = embeddings(args, videos, args.batch, gradient=args.gathered)
    loss = MutualMatchingLoss(**SETTINGS, chunk_elements=args.chunk_elements).to(args.device)
    video = torch.from_numpy(own.sentence_video).to(args.device)
    parts = [t for c in (own, rest) for t in (c.moments, c.sentences) if t.requires_grad]
    held = sum(t.numel() for c in (own, rest) for t in (c.moments, c.sentences)) / 2**18
    gradients = sum(t.numel() for t in parts) / 2**18
    pools = [NegativePool.of(own, own, 0, 0), NegativePool.of(rest, own)]

    def step(pools=pools) -> None:
        # gradients are not accumulated: they are counted once, as what is held
        torch.autograd.grad(
            sum(
                loss(own.moments, own.sentences, video, own.iou, own.ground_truth, Negatives(pools))
            ),
            parts,
            allow_unused=True,
        )

    step(pools[:1])  # libraries set themselves up
    before = clear_peak(args.device)
    step()
    extra = peak_mb(args.device) - before - gradients
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        step()
        if args.device != 'cpu':
            torch.cuda.synchronize(args.device)
        seconds.append(time.perf_counter() - started)
    return dict(
        videos=videos,
        held_mb=held + gradients,
        extra_mb=extra,
        seconds=min(seconds),
        dense_mb=len(own.sentences) * rest.moments[..., 0].numel() / 2**18,
    )


def in_new_process(args: argparse.Namespace, videos: int) -> dict[str, float]:
    """``measure``, where an earlier measurement has left nothing."""
    context = multiprocessing.get_context('fork' if args.device == 'cpu' else 'spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_measurement, args=(sender, args, videos))
    process.start()
    sender.close()  # so that a process that dies ends the waiting
    try:
        return receiver.recv()
    except EOFError:
        sys.exit(f'the measurement of {videos} videos failed (see above)')
    finally:
        process.join()


def send_measurement(sender, args: argparse.Namespace, videos: int) -> None:
    """Measure in this process, for the one that waits."""
    sender.send(measure(args, videos))


def verdict(args: argparse.Namespace, rows: list[dict]) -> str:
    """Empty if extra memory is flat, else what it did."""
    filling = [row for row in rows if row['dense_mb'] * 2**18 >= args.chunk_elements] or rows[-1:]
    first, last = filling[0], filling[-1]
    bound = args.max_growth * max(first['extra_mb'], 0.0) + NOISE_MB
    if last['extra_mb'] <= bound:
        return ''
    return (
        f'extra memory grew from {first["extra_mb"]:.0f} MB at {first["videos"]} videos to '
        f'{last["extra_mb"]:.0f} MB at {last["videos"]}'
    )


def main(argv=None) -> int:
    """Measure and print; returns the exit code."""
    args = parse_args(argv)
    if args.device == 'cpu' and not CLEAR_PEAK.exists():
        print(
            f'the peak of memory can only be measured with {CLEAR_PEAK} (Linux), or on a GPU '
            'with --device cuda',
            file=sys.stderr,
        )
        return 1
    rows = [in_new_process(args, videos) for videos in sorted(args.videos)]
    table = Table(title='contrastive losses, forward and backward', title_justify='left')
    for column in (
        "videos' worth of negatives",
        'held',
        'extra',
        'all similarities at once',
        'time',
        'time per video',
    ):
        table.add_column(column, justify='right')
    for row in rows:
        table.add_row(
            f'{row["videos"]:,}',
            f'{row["held_mb"]:.0f} MB',
            f'{row["extra_mb"]:.0f} MB',
            f'{row["dense_mb"]:.0f} MB',
            f'{row["seconds"] * 1000:.0f} ms',
            f'{row["seconds"] * 1000 / (row["videos"] + args.batch):.2f} ms',
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    if args.json:
        write_json(rows, args.json)
    problem = verdict(args, rows)
    if problem:
        print(f'FAILED: {problem}')
    return 1 if problem else 0


if __name__ == '__main__':
    sys.exit(main())
