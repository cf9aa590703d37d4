"""Clip features: ``python tools/data/extract_features.py VIDEOS_OR_FOLDER... --out FILE.h5``."""
import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets.features import FeatureFileError, GridFeatureExtractor, extract_videos
from mmn_plugin.datasets.features.progress_bar import ProgressBar
from mmn_plugin.engine.runner import whole_number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Write one (T, D) array of clip features per video into an HDF5 file. Running '
        'it again goes on where it stopped. Exit code 1 if a video could not be read.')
    parser.add_argument('videos', nargs='+', help='video files, or folders of them')
    parser.add_argument('--out', required=True, help='HDF5 file to write')
    parser.add_argument('--fps', type=float, default=8.0,
                        help='frames per second that are looked at (default: 8)')
    parser.add_argument('--stride', type=int, default=6, help='frames per clip (default: 6)')
    parser.add_argument('--workers', type=whole_number, default=2,
                        help='processes; 0: none but this one (default: 2)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_args(argv)
    try:
        extractor = GridFeatureExtractor(args.fps, args.stride)
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        with ProgressBar('features') as bar:
            failures = extract_videos(extractor, args.videos, args.out, args.workers, bar)
    except (FeatureFileError, ValueError, OSError, RuntimeError) as error:
        print(f'extract_features: {error}', file=sys.stderr)
        return 1
    if failures:
        print(f'{len(failures)} videos could not be read and are not in {args.out}:',
              *failures.values(), sep='\n  ', file=sys.stderr)
        return 1
    print(f'{args.out} is complete: {extractor.num_features} numbers per clip of '
          f'{args.stride / args.fps:g} s.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
