"""Verify downloaded ActivityNet Captions files and put them where configs/mmn_activitynet.py looks.

    python tools/data/activitynet/convert_activitynet.py --annotations DIR \\
        --features sub_activitynet_v1-3.c3d.hdf5

DIR holds train.json, val.json and test.json, or train.json, val_1.json and val_2.json of the
original release (MMN tests on val_2). README.md beside this script says where from.
"""

import sys
from pathlib import Path

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets.prepare import prepare_dataset, prepare_parser
from mmn_plugin.errors import plain_errors

EXPECTED = dict(train=(10_009, 37_417), val=(4_917, 17_505), test=(4_885, 17_031))
ORIGINAL_NAMES = dict(train='train.json', val='val_1.json', test='val_2.json')


def annotation_files(folder: Path) -> dict[str, Path]:
    """Split -> file, under 2D-TAN's names or those of the original release."""
    files = {split: folder / f'{split}.json' for split in EXPECTED}
    original = {split: folder / name for split, name in ORIGINAL_NAMES.items()}
    missing = not all(path.is_file() for path in files.values())
    return original if missing and all(p.is_file() for p in original.values()) else files


def main() -> int:
    """Gather and verify; returns the exit code."""
    parser = prepare_parser(__doc__, 'data/activitynet')
    text = 'folder with the three annotation files'
    parser.add_argument('--annotations', type=Path, required=True, help=text)
    args = parser.parse_args()
    with plain_errors():
        files, name = annotation_files(args.annotations), 'sub_activitynet_v1-3.c3d.hdf5'
        return prepare_dataset(args, files, name, 500, EXPECTED, 'c3d_features')


if __name__ == '__main__':
    sys.exit(main())
