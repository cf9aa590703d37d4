"""Make the Shapes corpus: ``python tools/data/make_shapes.py OUT --videos 1500 --seed 0``."""

import argparse

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import whole_number
from mmn_plugin.errors import plain_errors
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.files import writable_folder
from mmn_plugin.shapes import ShapesCorpus


def main() -> None:
    """Render, and say what there is."""
    parser = argparse.ArgumentParser(
        description='Render videos of moving shapes with sentences and annotations. Running it '
        'again with the same options goes on where it stopped.'
    )
    add = parser.add_argument
    add('out', type=writable_folder, help='folder to write')
    text = 'videos in all: 80 %% train, 8 %% val, 12 %% test (default: 1500)'
    add('--videos', type=int, default=1500, help=text)
    add('--seed', type=int, default=0, help='same seed, same corpus (default: 0)')
    add('--size', type=int, default=96, help='side of the frames in pixels (default: 96)')
    text = 'processes; 0: none but this one (default: 2)'
    add('--workers', type=whole_number, default=2, help=text)
    text = 'some events happen twice, and some sentences are about what does not happen'
    add('--absent-and-repeated', action='store_true', help=text)
    args = parser.parse_args()
    with plain_errors():
        corpus = ShapesCorpus(args.out, args.videos, args.seed, args.size, args.absent_and_repeated)
        with ProgressBar('videos') as bar:
            corpus.write(args.workers, bar)
    counts = ', '.join(f'{len(part)} {name}' for name, part in corpus.splits.items())
    print(f'Shapes is complete in {args.out}: {counts} videos (seed {args.seed}).')


if __name__ == '__main__':
    main()
