"""Convert the published files of HC-STVG to the HDF5 file that the dataset reads, once.

    python tools/data/hcstvg/convert.py --annotations train.json --tubes tubes.pkl \\
        --stream csn=csn.pkl --stream i3d=i3d.pkl --out data/hcstvg/train.h5

Pickles run code when they are opened. This tool therefore reads arrays and plain containers from
them and refuses everything else, naming the class. README.md beside this script says what the files
have to hold.
"""

import argparse
import sys
from pathlib import Path

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import tool_parser
from mmn_plugin.datasets import TubeFile, read_hcstvg_annotations, write_tube_file
from mmn_plugin.datasets.hcstvg import gather_videos, load_pickle
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file

WARNING = (
    '--trust-pickle: the pickles may now run any code on this machine with your rights. '
    'Only do this with files from a source that you trust.'
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add('--annotations', type=Path, required=True, help='annotation JSON')
    add('--tubes', type=Path, required=True, help='pickle of candidate tubes')
    add(
        '--stream',
        action='append',
        required=True,
        metavar='NAME=FILE.pkl',
        help='pickle of a feature stream, under the name that `streams` of the '
        'dataset config will use; repeat it for several',
    )
    add('--out', type=writable_file, required=True, help='HDF5 file to write')
    add(
        '--trust-pickle',
        action='store_true',
        help='let the pickles create objects of any class, and so RUN ANY CODE '
        'they contain, with your rights. Only for files from a source you trust; '
        'without it arrays and plain containers are read, all else is refused',
    )
    args = parser.parse_args()
    pairs = dict(stream.split('=', 1) for stream in args.stream if '=' in stream)
    if len(pairs) != len(args.stream) or not all([*pairs, *pairs.values()]):
        parser.error('--stream takes NAME=FILE.pkl, every name once')
    args.streams = {name: Path(path) for name, path in pairs.items()}
    return args


def main() -> None:
    """Write the file, and say what it holds."""
    args = parse_args()
    if args.trust_pickle:
        print(WARNING, file=sys.stderr)
    with plain_errors():
        annotations = read_hcstvg_annotations(args.annotations)
        tubes = load_pickle(args.tubes, args.trust_pickle)
        streams = {
            name: load_pickle(path, args.trust_pickle) for name, path in args.streams.items()
        }
        count = write_tube_file(args.out, gather_videos(annotations, tubes, streams))
        print(f'{args.out}: {count} videos, streams {", ".join(streams)}')
        file = TubeFile(args.out)
        if without := [video for video in annotations if not file.num_tubes(video)]:
            print(
                f'{len(without)} of them have no candidate tube ({", ".join(without[:5])}): '
                'training leaves them out, a test counts them as not found'
            )


if __name__ == '__main__':
    main()
