"""Serve a page on which anybody can ask a model about videos.

    mmn web CHECKPOINT [--config CONFIG] [--host 0.0.0.0] [--port 7860]

Only this machine can reach the page unless --host says otherwise; there is no login, and no
encryption, so put a server that has both before it where others can reach it. What a visitor
uploads lies in a folder of its own, which is deleted when the visitor leaves, after a while
without questions, and at the end. Needs Gradio: ``pip install "mmn_plugin[web]"``.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.cli.arguments import Parser, add_config_options, add_device
from mmn_plugin.config import load_config
from mmn_plugin.errors import OperationError
from mmn_plugin.webui import Limits, SessionStore
from mmn_plugin.webui.answers import ExampleVideo, VideoGrounder
from mmn_plugin.webui.page import GroundingPage


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    limits = Limits()
    parser = Parser('web', __doc__)
    parser.add_argument(
        'checkpoint', help='trained model: a checkpoint (.pth) or a folder of save_pretrained'
    )
    parser.add_argument(
        '--config', help="a config, or a name of model-index.yml (default: the checkpoint's own)"
    )
    add_config_options(parser)
    add_device(parser)
    parser.add_argument('--top-n', type=int, default=5, help='moments per sentence (default: 5)')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at (default: 127.0.0.1, this machine alone)',
    )
    parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
    parser.add_argument(
        '--max-mb',
        type=float,
        default=limits.megabytes,
        help=f'largest upload (default: {limits.megabytes:g})',
    )
    parser.add_argument(
        '--max-minutes',
        type=float,
        default=limits.seconds / 60,
        help=f'longest video (default: {limits.seconds / 60:g})',
    )
    parser.add_argument(
        '--max-pixels',
        type=int,
        default=limits.pixels,
        help=f'largest picture of a video, width x height (default: {limits.pixels}, 4096 x 2304)',
    )
    parser.add_argument(
        '--max-work',
        type=float,
        default=limits.work_seconds,
        metavar='SECONDS',
        help=f'time that may be spent on reading a video (default: {limits.work_seconds:g})',
    )
    parser.add_argument(
        '--keep-minutes',
        type=float,
        default=limits.idle_seconds / 60,
        help='delete a video after so long without a question '
        f'(default: {limits.idle_seconds / 60:g})',
    )
    parser.add_argument(
        '--examples',
        metavar='DIR',
        help='offer the videos of this folder, whose annotations.json has their sentences',
    )
    args = parser.parse_args(argv)
    if args.top_n < 1:
        parser.error(f'--top-n {args.top_n}: it must be at least 1')
    if args.cfg_options and not args.config:
        parser.error('--cfg-options needs --config')
    return args


def build_inferencer(args):
    """The model, by its config or by the one that the checkpoint carries.

    Raises:
        ValueError: there is no config, or it does not say how features are made from a video.
    """
    config = args.config
    if args.cfg_options:
        config = load_config(config, args.cfg_options)
    inferencer = GroundingInferencer(config, args.checkpoint, args.device, args.top_n)
    _ = inferencer.extractor  # says what is missing now, not at the first visitor
    return inferencer


def run(args: argparse.Namespace, answer: Callable) -> int:
    """Serve the page until Ctrl-C or SIGTERM."""
    if find_spec('gradio') is None:
        raise OperationError(
            'the page needs Gradio: pip install "mmn_plugin[web]", or '
            'pip install -r requirements/web.txt'
        )
    limits = Limits(
        args.max_mb,
        60 * args.max_minutes,
        idle_seconds=60 * args.keep_minutes,
        pixels=args.max_pixels,
        work_seconds=args.max_work,
    )
    grounder = VideoGrounder(build_inferencer(args), limits)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that everything is deleted
    with SessionStore(limits) as store:
        examples = ExampleVideo.read_folder(args.examples) if args.examples else []
        for example in [example for example in examples if not grounder.knows(example)]:
            print(f'{example.name} is left out: the model does not know its words')
            examples.remove(example)
        page = GroundingPage(grounder, store, examples)
        url = page.launch(args.host, args.port, block=False)
        print(f'{url}  (Ctrl+C ends it)', flush=True)
        answer(dict(url=url))
        try:
            page.blocks.block_thread()
        finally:
            page.blocks.close(verbose=False)
    return 0
