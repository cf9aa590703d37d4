"""Make the Shapes corpus: ``python tools/data/make_shapes.py OUT --videos 1500 --seed 0``."""

import argparse
import sys

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import whole_number
from mmn_plugin.errors import plain_errors
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import writable_folder
from mmn_plugin.shapes import ShapesCorpus


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Render videos of moving shapes with sentences and annotations. Running it '
        'again with the same options goes on where it stopped.'
    )
    parser.add_argument('out', type=writable_folder, help='folder to write')
    parser.add_argument(
        '--videos',
        type=int,
        default=1500,
        help='videos in all: 80 %% train, 8 %% val, 12 %% test (default: 1500)',
    )
    parser.add_argument('--seed', type=int, default=0, help='same seed, same corpus (default: 0)')
    parser.add_argument(
        '--size', type=int, default=96, help='side of the frames in pixels (default: 96)'
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
    with plain_errors():
        corpus = ShapesCorpus(args.out, args.videos, args.seed, args.size)
        with ProgressBar('videos') as bar:
            corpus.write(args.workers, bar)
    counts = ', '.join(f'{len(part)} {name}' for name, part in corpus.splits.items())
    print(f'Shapes is complete in {args.out}: {counts} videos (seed {args.seed}).')
    return 0


if __name__ == '__main__':
    sys.exit(main())
