"""Write the features of videos to a file.

    mmn extract videos/ --out grid.h5                                         # needs no weights
    mmn extract videos/ --config c3d_fc6_sports1m --out c3d.h5
    torchrun --nproc-per-node 4 -m mmn extract videos/ --config i3d_r50_k400 --out i3d.h5 \\
        --launcher pytorch                                                    # 4 GPUs share them

Writes an HDF5 file with one (T, D) array per video, named after its file without suffix. Running it
again goes on where it stopped. Exit code 1 if a video could not be read.
"""

import argparse
import atexit
import datetime
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mmn_plugin.cli.arguments import Parser, add_config_options, add_device, whole_number
from mmn_plugin.cli.command_line import require_launcher
from mmn_plugin.engine import add_amp, explicit_amp
from mmn_plugin.features import build_extractor, extract_videos, extractor_config
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import writable_file

DEFAULT = 'extractors/shapes_grid.py'
MEET = datetime.timedelta(minutes=10)  # for all processes to find each other


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('extract', __doc__)
    parser.add_argument('videos', nargs='+', help='video files, or folders of them')
    parser.add_argument('--out', required=True, type=writable_file, help='HDF5 file to write')
    parser.add_argument(
        '--config',
        default=DEFAULT,
        help='a config with an `extractor`: a path, or one of mmn_plugin, such as '
        f'extractors/i3d_r50_k400.py or mmn_shapes.py (default: {DEFAULT})',
    )
    parser.add_argument(
        '--checkpoint',
        help="weights in place of the config's: a file, or for models of Hugging Face a folder",
    )
    parser.add_argument(
        '--fps', type=float, help="frames per second that are looked at (default: the config's)"
    )
    parser.add_argument('--stride', type=int, help="frames per row (default: the config's)")
    add_device(parser)
    parser.add_argument(
        '--workers',
        type=whole_number,
        help='videos at a time: threads that decode for a GPU, processes on the '
        'CPU; 0: one step after the other (default: 4 on a GPU; on the CPU 2 for '
        'the grid extractor, else 0)',
    )
    add_amp(parser)
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch'],
        default='none',
        help='pytorch: the processes that torchrun starts share the videos',
    )
    return parser.parse_args(explicit_amp(argv))


def join_group(launcher: str) -> bool:
    """Enter the group of processes that share the videos; whether this is the first of them."""
    if launcher == 'none':
        return True
    from torch import distributed

    store, rank, processes = next(distributed.rendezvous('env://', timeout=MEET))
    # Only told when to begin and to end, which can be days apart; nothing is computed together.
    distributed.init_process_group(
        'gloo', store=store, rank=rank, world_size=processes, timeout=datetime.timedelta(days=30)
    )
    return rank == 0


def leave_group(code: int) -> int:
    """End a process of a group: gloo's threads can outlive the interpreter and make it fail."""
    import torch

    if not torch.distributed.is_initialized():
        return code
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def own_device(launcher: str) -> str | None:
    """The accelerator of this process, where each has one."""
    import torch

    if launcher == 'none' or not torch.cuda.is_available():
        return None
    return f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()}'


@contextmanager
def clean_stop():
    """End with one message at Ctrl-C and at SIGTERM, once what is finished is in the file."""
    code = 130

    def stop(*_) -> None:
        nonlocal code
        code = 143
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()  # of others Python knows none
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get('RANK', '0') == '0':
            print(
                'Stopped. Run the command again: it goes on with what is not finished.',
                file=sys.stderr,
            )
        raise SystemExit(leave_group(code)) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace, answer: Callable) -> int:
    """Extract; returns the exit code, 1 if a video could not be read."""
    with clean_stop():
        require_launcher(args.launcher)
        settings = extractor_config(
            args.config,
            args.cfg_options,
            checkpoint=args.checkpoint,
            fps=args.fps,
            stride=args.stride,
            amp=args.amp,
        )
        extractor = build_extractor(settings, args.device or own_device(args.launcher))
        if args.amp:
            settings['amp'] = extractor.amp  # what it came to here
        workers = extractor.workers if args.workers is None else args.workers
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        first = join_group(args.launcher)
        with ProgressBar('features') as bar:
            report = extract_videos(extractor, args.videos, args.out, workers, bar, settings)
        if not first:
            return leave_group(0)
        answer(asdict(report))
    for line in report.lines():
        print(line, file=sys.stderr)
    if not report.failures:
        print(
            f'{args.out} is complete: {extractor.num_features} numbers per clip of '
            f'{extractor.stride / extractor.fps:g} s.'
        )
    return leave_group(1 if report.failures else 0)
