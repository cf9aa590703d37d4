"""Verify downloaded TACoS files and put them where configs/mmn_tacos.py looks for them.

    python tools/data/tacos/convert_tacos.py --annotations DIR --features tall_c3d_features.hdf5

DIR holds train.json, val.json and test.json. README.md beside this script says where from.
"""

import sys
from pathlib import Path

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets.prepare import prepare_dataset, prepare_parser
from mmn_plugin.errors import plain_errors

EXPECTED = dict(train=(75, 9_790), val=(27, 4_436), test=(25, 4_001))


def main() -> int:
    """Gather and verify; returns the exit code."""
    parser = prepare_parser(__doc__, 'data/tacos')
    text = 'folder with train.json, val.json, test.json'
    parser.add_argument('--annotations', type=Path, required=True, help=text)
    args = parser.parse_args()
    with plain_errors():
        files = {split: args.annotations / f'{split}.json' for split in EXPECTED}
        return prepare_dataset(args, files, 'tall_c3d_features.hdf5', 4096, EXPECTED)


if __name__ == '__main__':
    sys.exit(main())
