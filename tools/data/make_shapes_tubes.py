"""Candidate tubes on Shapes: ``python tools/data/make_shapes_tubes.py data/shapes``."""

import argparse
import sys

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import whole_number
from mmn_plugin.errors import plain_errors
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import writable_folder
from mmn_plugin.shapes.tubes import SPLITS, ShapesTracker, ShapesTubes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Make jittered and broken candidate tubes, with distractors, and their '
        'features for the videos of a Shapes corpus.'
    )
    parser.add_argument('corpus', help='folder that tools/data/make_shapes.py wrote')
    parser.add_argument('--out', help='folder to write to (default: CORPUS_tubes)')
    parser.add_argument(
        '--splits', nargs='+', choices=SPLITS, default=SPLITS, help='which splits (default: all)'
    )
    parser.add_argument('--videos', type=int, help='at most so many of each split (default: all)')
    parser.add_argument(
        '--tracker',
        action='store_true',
        help='take the tubes that the built-in tracker finds in the videos for '
        'candidates, as when a video is asked about',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='same seed, same candidates (default: 0)'
    )
    parser.add_argument(
        '--workers',
        type=whole_number,
        default=2,
        help='processes; 0: none but this one (default: 2)',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_args(argv)
    out = args.out or f'{args.corpus.rstrip("/")}_tubes'
    with plain_errors():
        writable_folder(out)
        tubes = ShapesTubes(args.corpus, args.seed, ShapesTracker() if args.tracker else None)
        with ProgressBar('videos') as bar:
            counts = tubes.write(out, args.splits, args.workers, args.videos, bar)
    print(f'{out} holds {", ".join(f"{count} {name}" for name, count in counts.items())} videos')
    return 0


if __name__ == '__main__':
    sys.exit(main())
