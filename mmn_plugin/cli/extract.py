"""The command ``extract`` of `mmn_plugin.cli.main`."""

import argparse
import datetime
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from mmn_plugin.cli.main import (
    Parser,
    add_config_options,
    add_device,
    add_model_root,
    explicit_amp,
    whole_number,
)
from mmn_plugin.engine import add_amp
from mmn_plugin.engine.dist import end_distributed, require_launcher
from mmn_plugin.features import build_extractor, extract_videos, extractor_config
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import writable_file

DEFAULT = 'extractors/shapes_grid.py'
MEET = datetime.timedelta(minutes=10)  # for all processes to find each other


def parse_extract(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('extract', run_extract.__doc__)
    add = parser.add_argument
    add('videos', nargs='+', help='video files, or folders of them')
    add('--out', required=True, type=writable_file, help='HDF5 file to write')
    add('--config', default=DEFAULT, help='a config with an `extractor` (default: %(default)s)')
    add('--checkpoint', help="weights in place of the config's: a file, or a Hugging Face folder")
    add_model_root(parser)
    add('--fps', type=float, help="frames per second that are looked at (default: the config's)")
    add('--stride', type=int, help="frames per row (default: the config's)")
    add_device(parser)
    add(
        '--workers',
        type=whole_number,
        help='videos at a time: threads that decode ahead of a GPU, on the CPU 1 such thread or '
        'several processes; 0: one step after the other (default: 4 on a GPU; on the CPU 2 for '
        'the grid extractor, else 0)',
    )
    add_amp(parser)
    add_config_options(parser)
    add('--launcher', choices=['none', 'pytorch'], default='none', help='pytorch: under torchrun')
    return parser.parse_args(explicit_amp(argv))


def join_group(launcher: str) -> bool:
    """Enter the group of processes that share the videos; whether this is the first of them."""
    if launcher == 'none':
        return True
    distributed = torch.distributed
    store, rank, processes = next(distributed.rendezvous('env://', timeout=MEET))
    # Only told when to begin and to end, which can be days apart; nothing is computed together.
    distributed.init_process_group(
        'gloo', store=store, rank=rank, world_size=processes, timeout=datetime.timedelta(days=30)
    )
    return rank == 0


def own_device(launcher: str) -> str | None:
    """The accelerator of this process, where each has one."""
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
            stopped = 'Stopped. Run the command again: it goes on with what is not finished.'
            print(stopped, file=sys.stderr)
        end_distributed(code=code)
        raise SystemExit(code) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def run_extract(args: argparse.Namespace, answer: Callable) -> int:
    """Write the features of videos to a file.

        mmn extract videos/ --out grid.h5                                         # needs no weights
        mmn extract videos/ --config c3d_fc6_sports1m --out c3d.h5
        torchrun --nproc-per-node 4 -m mmn extract videos/ --config i3d_r50_k400 --out i3d.h5 \\
            --launcher pytorch                                                # 4 GPUs share them

    Writes an HDF5 file with one (T, D) array per video, named after its file without suffix.
    Running it again goes on where it stopped. Exit code 1 if a video could not be read.
    """
    with clean_stop():
        require_launcher(args.launcher)
        own = {name: getattr(args, name) for name in ('checkpoint', 'fps', 'stride', 'amp')}
        own['root'] = args.model_root
        settings = extractor_config(args.config, args.cfg_options, **own)
        extractor = build_extractor(settings, args.device or own_device(args.launcher))
        if args.amp:
            settings['amp'] = extractor.amp  # what it came to here
        workers = extractor.workers if args.workers is None else args.workers
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        first = join_group(args.launcher)
        with ProgressBar('features') as bar:
            report = extract_videos(
                extractor, args.videos, args.out, workers, bar, settings, bar.set_note
            )
        if not first:
            end_distributed()
            return 0
        answer(asdict(report))
    for line in report.lines():
        print(line, file=sys.stderr)
    if not report.failures:
        print(
            f'{args.out} is complete: {extractor.num_features} numbers per clip of '
            f'{extractor.stride / extractor.fps:g} s.'
        )
    code = 1 if report.failures else 0
    end_distributed(code=code)
    return code
