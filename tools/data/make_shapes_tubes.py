"""Candidate tubes on Shapes: ``python tools/data/make_shapes_tubes.py data/shapes``."""

import argparse

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import whole_number
from mmn_plugin.errors import plain_errors
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import writable_folder
from mmn_plugin.shapes.tubes import SPLITS, ShapesTracker, ShapesTubes


def main() -> None:
    """Make the tubes, and say what there is."""
    parser = argparse.ArgumentParser(
        description='Make jittered and broken candidate tubes, with distractors, and their '
        'features for the videos of a Shapes corpus.'
    )
    add = parser.add_argument
    add('corpus', help='folder that tools/data/make_shapes.py wrote')
    add('--out', help='folder to write to (default: CORPUS_tubes)')
    add('--splits', nargs='+', choices=SPLITS, default=SPLITS, help='which splits (default: all)')
    add('--videos', type=int, help='at most so many of each split (default: all)')
    text = (
        'candidates are the tubes that the built-in tracker finds, as when a video is asked about'
    )
    add('--tracker', action='store_true', help=text)
    add('--seed', type=int, default=0, help='same seed, same candidates (default: 0)')
    text = 'processes; 0: none but this one (default: 2)'
    add('--workers', type=whole_number, default=2, help=text)
    args = parser.parse_args()
    out = args.out or f'{args.corpus.rstrip("/")}_tubes'
    with plain_errors():
        writable_folder(out)
        tubes = ShapesTubes(args.corpus, args.seed, ShapesTracker() if args.tracker else None)
        with ProgressBar('videos') as bar:
            counts = tubes.write(out, args.splits, args.workers, args.videos, bar)
    print(f'{out} holds {", ".join(f"{count} {name}" for name, count in counts.items())} videos')


if __name__ == '__main__':
    main()
