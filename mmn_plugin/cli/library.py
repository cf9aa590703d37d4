"""The commands ``library`` and ``search`` of `mmn_plugin.cli.main`."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.cli.extract import clean_stop
from mmn_plugin.cli.main import (
    Parser,
    add_device,
    add_model,
    chosen_config,
    count,
    warn_of_unknown_words,
    whole_number,
)
from mmn_plugin.errors import UserError, user_message
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import OutputFolder, text_argument, writable_file
from mmn_plugin.library import MomentLibrary
from mmn_plugin.library.answers import hit_candidates, write_chapters
from mmn_plugin.structures.annotations import read_annotations
from mmn_plugin.visualization import GroundingVisualizer

NOWHERE = 'probably nowhere in this library; these come nearest'
PICTURES = ('.png', '.jpg', '.jpeg')
ACTIONS = ('add', 'update', 'remove', 'info', 'verify', 'compact', 'export')


def parse_library(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    action, *rest = argv or ['--help']
    if action not in ACTIONS:
        parser = Parser('library', f'{run_library.__doc__}\n{_actions()}')
        parser.add_argument('action', choices=ACTIONS, metavar='ACTION')
        parser.add_argument('library', metavar='LIB', help='the folder of the library')
        parser.parse_args([action])  # which ends with the help, or the error
    run = globals()[f'_{action}']
    parser = Parser(f'library {action}', run.__doc__)
    parser.add_argument('library', type=Path, metavar='LIB', help='the folder of the library')
    add_arguments(action, parser)
    args = parser.parse_args(rest, argparse.Namespace(run=run))
    if action == 'remove' and not args.videos and not args.damaged:
        parser.error('name the ids of videos, or --damaged')
    return args


def _actions() -> str:
    """A line for each action."""
    docs = {action: globals()[f'_{action}'].__doc__.splitlines()[0] for action in ACTIONS}
    lines = [f'  mmn library {action:<8}LIB ...  {text}' for action, text in docs.items()]
    return '\n'.join([*lines, '\n`mmn library ACTION --help` lists what an action takes.'])


def add_arguments(action: str, parser: Parser) -> None:
    """Add the arguments of an action but for the library."""
    add = parser.add_argument
    if action == 'add':
        add('videos', nargs='+', help='videos, folders of videos, files or folders of features')
        add('--checkpoint', help='of a new library: trained model, .pth or save_pretrained')
        add_model(parser, "the library's own, or the checkpoint's", top_n=False)
        text = 'how vectors of a new library are stored (default: float16)'
        add('--dtype', choices=['float16', 'float32'], default='float16', help=text)
    elif action == 'update':
        add('videos', nargs='*', help='as of `add` (default: all that are there)')
        add('--remove-missing', action='store_true', help='remove videos whose files are gone')
        add_device(parser)
    elif action == 'remove':
        add('videos', nargs='*', type=text_argument, metavar='ID', help='ids of videos')
        text = 'remove the videos whose moments are damaged, as `verify` tells; add them again then'
        add('--damaged', action='store_true', help=text)
    elif action == 'export':
        add('out', type=writable_file, metavar='OUT.h5', help='HDF5 file to write')
    if action in ('add', 'update'):
        text = 'annotation file with the seconds of videos that are features alone'
        add('--annotations', metavar='ANN.json', help=text)
        text = 'videos that are decoded at a time (default: as suits the extractor)'
        add('--workers', type=whole_number, help=text)


def run_library(args: argparse.Namespace, answer: Callable) -> int:
    """Embed videos once, for `mmn search`; a library is a folder.

    mmn library add LIB videos/ --checkpoint CKPT
    mmn library add LIB videos/ more.mp4 features.h5 --model zero_shot_siglip2
    """
    return args.run(args, answer)


def _open(args: argparse.Namespace, readonly: bool = False) -> MomentLibrary:
    device = getattr(args, 'device', None)
    return MomentLibrary(args.library, device=device, readonly=readonly)


def _created(args: argparse.Namespace) -> MomentLibrary:
    """The library, made where there is none; another model than its own is refused."""
    config, there = chosen_config(args), MomentLibrary.exists(args.library)
    if there and config is None and args.checkpoint is None:
        return _open(args)
    # which says what is missing where none is named
    model = GroundingInferencer(config, args.checkpoint, args.device, model_root=args.model_root)
    if there:
        return MomentLibrary(args.library, model, args.device, readonly=False)
    return MomentLibrary.create(args.library, model, dtype=args.dtype)


def _counted(number: int, name: str) -> str:
    """A number of things, in words."""
    return f'{number:,} {name}{"" if number == 1 else "s"}'


def _changed(args: argparse.Namespace, answer: Callable, change: Callable) -> int:
    """Add or update with a bar, and report; exit code 1 where a video could not be read."""
    durations = None
    if args.annotations:
        durations = {one.video_id: one.duration for one in read_annotations(args.annotations)}
    report = change(workers=args.workers, progress=ProgressBar, durations=durations)
    answer(asdict(report))
    for line in report.lines():
        print(line, file=sys.stderr)
    return 1 if report.failures else 0


def _add(args: argparse.Namespace, answer: Callable) -> int:
    """Add videos; makes the library where there is none, with the model that is named.

        mmn library add LIB videos/ --checkpoint CKPT
        mmn library add LIB features.h5 --annotations annotations.json

    The library keeps what a search needs of the model, and uses it for what is added later. A video
    that cannot be read is reported, and the rest goes on; exit code 1 then. Running it again goes
    on where it stopped.
    """
    with clean_stop():
        library = _created(args)
        return _changed(args, answer, partial(library.add, args.videos))


def _update(args: argparse.Namespace, answer: Callable) -> int:
    """Embed videos anew whose files have changed.

    mmn library update LIB --remove-missing
    """
    with clean_stop():
        library = _open(args)
        change = partial(library.update, args.videos or None, args.remove_missing)
        return _changed(args, answer, change)


def _remove(args: argparse.Namespace, answer: Callable) -> int:
    """Remove videos by their ids, or those that are damaged; `compact` frees their space."""
    library = _open(args)
    damaged = library.store.damaged() if args.damaged else []
    removed = library.remove([*args.videos, *damaged])
    answer(dict(removed=removed))
    print(f'{_counted(removed, "video")} removed')
    return 0


def _info(args: argparse.Namespace, answer: Callable) -> int:
    """Tell sizes, model and settings."""
    info = _open(args, readonly=True).info()
    answer(info)
    settings = ', '.join(f'{name} {value}' for name, value in info['settings'].items())
    removed = f' (and {info["removed_moments"]:,} removed ones)' if info['removed_moments'] else ''
    print(
        f'{_counted(info["videos"], "video")}, {info["hours"]:.2f} hours, '
        f'{_counted(info["moments"], "moment")}{removed} in '
        f'{_counted(info["segments"], "segment")}\n'
        f'{info["bytes"] / 1e6:,.1f} MB, and {info["model_bytes"] / 1e6:,.1f} MB of the model '
        f'{info["model"]}\nsettings: {settings}; vectors: {info["dtype"]}'
    )
    if info['videos']:
        per_hour = info['bytes_per_hour'] / 1e6
        print(f'{info["bytes_per_moment"]:.0f} bytes a moment, {per_hour:.1f} MB an hour of video')
    for space, width in info['spaces'].items():
        shares = info['spectrum'].get(space, {}).items()
        held = ', '.join(f'{100 * share:.1f} % in the first {level}' for level, share in shares)
        print(f'space {space}, {width} numbers: of the squared norms {held or "nothing yet"}')
    return 0


def _verify(args: argparse.Namespace, answer: Callable) -> int:
    """Compare all files with their checksums; exit code 1 where there is a damage."""
    problems = _open(args, readonly=True).verify()
    answer(dict(problems=problems))
    print('\n'.join(problems) or f'{args.library}: no damage')
    return 1 if problems else 0


def _compact(args: argparse.Namespace, answer: Callable) -> int:
    """Free the space of removed videos, and rotate vectors anew, for faster searches."""
    library = _open(args)
    before = library.info()
    library.compact()
    after = library.info()
    answer(dict(before=before, after=after))
    sizes = [
        f'{_counted(one["segments"], "segment")}, {one["bytes"] / 1e6:.1f} MB'
        for one in (before, after)
    ]
    print(f'{sizes[0]}, now {sizes[1]}')
    return 0


def _export(args: argparse.Namespace, answer: Callable) -> int:
    """Write all moments into an HDF5 file, for other programs; see docs/library.md."""
    _open(args, readonly=True).export(args.out)
    answer(dict(file=str(args.out)))
    print(args.out)
    return 0


def parse_search(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('search', run_search.__doc__)
    add = parser.add_argument
    add('library', type=Path, metavar='LIB', help='folder that `mmn library add` made')
    add('sentences', nargs='+', type=text_argument, help='what to look for')
    add('--top', type=count, default=20, help='moments of each sentence (default: 20)')
    add('--page', type=count, default=1, help='2 is what follows the first ones, and so on')
    text = 'look at these videos alone'
    add('--video', nargs='+', type=text_argument, metavar='ID', help=text)
    text = 'look at the videos alone that an expression of SQL is true of, over the columns id, '
    text += 'path, folder, duration (seconds), modified, moments and meta (JSON)'
    add('--where', type=text_argument, metavar='SQL', help=text)
    text = 'moment, or video: the best moment of each video (default: moment)'
    add('--group', choices=['moment', 'video'], default='moment', help=text)
    text = "presence below which a sentence probably is nowhere (default: the library's)"
    add('--threshold', type=float, help=text)
    text = 'write the moments as chapters; of several videos a file NAME.VIDEO.vtt for each'
    add('--vtt', type=writable_file, metavar='FILE.vtt', help=text)
    text = 'draw a film strip of each moment, and where in its video that is'
    add('--picture', type=writable_file, metavar='FILE.png', help=text)
    text = 'write the N best moments of each sentence as videos (default: none)'
    add('--clips', type=whole_number, default=0, metavar='N', help=text)
    text = 'with --clips: what a video shows before and after its moment (default: 0)'
    add('--pad', type=float, default=0.0, metavar='SECONDS', help=text)
    add('--out', type=OutputFolder, help='with --clips: folder for the videos')
    add_device(parser)
    args = parser.parse_intermixed_args(argv)
    if args.pad < 0:
        parser.error(f'--pad {args.pad:g}: give seconds of 0 or more')
    if bool(args.clips) != bool(args.out) or (args.pad and not args.clips):
        parser.error('--clips and --out need each other, and --pad needs --clips')
    if args.picture and args.picture.suffix not in PICTURES:
        parser.error(f'--picture {args.picture}: its name must end in {", ".join(PICTURES)}')
    return args


def run_search(args: argparse.Namespace, answer: Callable) -> int:
    """Find the moments of a library that sentences describe: which video, and when.

        mmn search LIB "a red ball moves left" "it blinks" --top 5
        mmn search LIB "a red ball moves left" --where "folder = 'kitchen' and duration < 600"
        mmn search LIB "a red ball moves left" --clips 3 --pad 2 --out DIR --json FILE.json
        mmn search LIB "a red ball moves left" --top 5 --picture FILE.png

    The first moments are exactly those of the highest scores in the library. Exit code 1 if a clip
    could not be written.
    """
    library = _open(args, readonly=True)
    answers = library.search(
        args.sentences, args.top, args.video, args.where, args.group, args.page
    )
    warn_of_unknown_words(library.model.model, args.sentences)
    results, code, threshold = [], 0, args.threshold
    if threshold is None:
        threshold = library.settings['presence_threshold']
    for sentence, hits in zip(args.sentences, answers, strict=True):
        presence = hits[0].presence if hits and args.page == 1 else None
        present = None if presence is None else presence >= threshold
        result = dict(sentence=sentence, hits=[asdict(hit) for hit in hits], present=present)
        print_hits(result, args)
        if present is False:
            print(f'{NOWHERE} (presence {presence:.4f}, below {threshold:g})')
        if args.clips:
            result['clips'], failed = cut_clips(args, sentence, hits)
            code |= failed
        results.append(result)
    if not any(answers):
        print(_why_nothing(library, args))
    if args.vtt:
        print(*write_chapters(args.vtt, args.sentences, answers), sep='\n')
    if args.picture:
        notes = [NOWHERE if result['present'] is False else '' for result in results]
        picture = GroundingVisualizer.draw_hits(args.sentences, answers, notes)
        GroundingVisualizer.save_image(picture, args.picture)
        print(args.picture)
    answer(results)
    return code


def print_hits(result: dict, args: argparse.Namespace) -> None:
    """One line for each hit of a sentence."""
    if not result['hits']:
        return
    table = Table(title=escape(result['sentence']), title_justify='left')
    table.add_column('rank', justify='right')
    table.add_column('video', overflow='fold')
    for name in ('start - end (s)', 'score', 'presence'):
        table.add_column(name, justify='right', no_wrap=True)
    first = args.top * (args.page - 1) + 1
    for rank, hit in enumerate(result['hits'], first):
        seen = '' if hit['presence'] is None else f'{hit["presence"]:.3f}'
        span = f'{hit["start"]:.2f} - {hit["end"]:.2f}'
        table.add_row(str(rank), escape(hit['video_id']), span, f'{hit["score"]:.4f}', seen)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def cut_clips(args: argparse.Namespace, sentence: str, hits: list) -> tuple[list[dict], int]:
    """Write the clips of the first hits; those whose video is gone are said, for exit code 1."""
    clips, failed = [], 0
    for hit in hits[: args.clips]:
        try:
            (one,) = hit_candidates(sentence, [hit], 1, args.pad, args.out)
        except UserError as error:
            failed = 1
            print(f'no clip: {user_message(error)}', file=sys.stderr)
            clips.append(None)
        else:
            print(one.clip)
            clips.append(dict(file=one.clip.name, offset=one.offset, duration=one.duration))
    return clips, failed


def _why_nothing(library: MomentLibrary, args: argparse.Namespace) -> str:
    """Why no sentence has a hit."""
    if not library.store.snapshot().videos:
        return f'{args.library} is empty: `mmn library add {args.library} VIDEO ...`'
    if not library.store.select(args.where, args.video):
        filters = {'is one of --video': args.video, 'fits --where': args.where}
        return f'no video of {args.library} {" and ".join(filter(filters.get, filters))}'
    return f'there is no page {args.page}'
