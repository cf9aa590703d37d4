"""The command ``web`` of `mmn_plugin.cli.main`."""

import argparse
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec

from mmn_plugin.cli.main import Parser, add_model, chosen_config
from mmn_plugin.errors import OperationError

DEFAULT = 'zero_shot_siglip2'  # a model that needs no checkpoint


def parse_web(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    from mmn_plugin.webui import Limits

    limits, parser = Limits(), Parser('web', run_web.__doc__)
    add = parser.add_argument
    text = 'trained model: a checkpoint (.pth) or a folder of save_pretrained'
    add('checkpoint', nargs='?', help=f'{text} (default: none, for a model that needs no training)')
    add_model(parser, f"the checkpoint's own; without a checkpoint {DEFAULT}")
    add('--host', default='127.0.0.1', help='address to listen at (default: this machine alone)')
    add('--port', type=int, help='default: the first free one from 7860 on')
    for name, value, text in (
        ('mb', limits.megabytes, 'largest upload'),
        ('minutes', limits.seconds / 60, 'longest video'),
        ('pixels', limits.pixels, 'largest picture of a video, width x height'),
        ('work', limits.work_seconds, 'seconds that may be spent on reading a video'),
    ):
        kind, text = int if name == 'pixels' else float, f'{text} (default: %(default)s)'
        add(f'--max-{name}', type=kind, default=value, metavar='N', help=text)
    add(
        '--keep-minutes',
        type=float,
        default=limits.idle_seconds / 60,
        metavar='N',
        help='delete a video after so long without a question (default: %(default)s)',
    )
    add('--examples', metavar='DIR', help='offer the videos that annotations.json there describes')
    return parser.parse_args(argv)


def run_web(args: argparse.Namespace, answer: Callable) -> int:
    """Serve a page on which anybody can ask a model about videos.

        mmn web                                                # zero_shot_siglip2, untrained
        mmn web --model zero_shot_clip --model-root FOLDER     # without a network
        mmn web CHECKPOINT [--config CONFIG] [--host 0.0.0.0] [--port 7860]

    Only this machine can reach the page unless --host says otherwise; there is no login, and no
    encryption, so put a server that has both before it where others can reach it. What a visitor
    uploads lies in a folder of its own, which is deleted when the visitor leaves, after a while
    without questions, and at the end. Needs Gradio: ``pip install "mmn_plugin[web]"``.
    """
    if find_spec('gradio') is None:
        raise OperationError(
            'the page needs Gradio: pip install "mmn_plugin[web]", or '
            'pip install -r requirements/web.txt'
        )
    from mmn_plugin.apis import GroundingInferencer
    from mmn_plugin.webui import Limits, PageError, SessionStore
    from mmn_plugin.webui.answers import ExampleVideo, VideoGrounder
    from mmn_plugin.webui.page import GroundingPage

    limits = Limits(
        args.max_mb,
        60 * args.max_minutes,
        idle_seconds=60 * args.keep_minutes,
        pixels=args.max_pixels,
        work_seconds=args.max_work,
    )
    if args.checkpoint is None and args.config is None:
        args.config = DEFAULT
    options = dict(device=args.device, top_n=args.top_n, model_root=args.model_root)
    inferencer = GroundingInferencer(chosen_config(args), args.checkpoint, **options)
    _ = inferencer.extractor.num_features  # says what is missing now, not at the first visitor
    grounder = VideoGrounder(inferencer, limits)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that everything is deleted
    with SessionStore(limits) as store:
        examples = ExampleVideo.read_folder(args.examples) if args.examples else []
        for example in list(examples):
            try:
                grounder.check_sentences(list(example.truth))
            except PageError:
                print(f'{example.name} is left out: the model does not know its words')
                examples.remove(example)
        page = GroundingPage(grounder, store, examples)
        url = page.launch(args.host, args.port)
        print(f'{url}  (Ctrl+C ends it)', flush=True)
        answer(dict(url=url))
        try:
            page.blocks.block_thread()
        finally:
            page.blocks.close(verbose=False)
    return 0
