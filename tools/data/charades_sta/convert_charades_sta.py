"""Convert Charades-STA to JSON, verify it, and put it where configs/mmn_charades.py looks.

    python tools/data/charades_sta/convert_charades_sta.py \\
        --sta charades_sta_train.txt charades_sta_test.txt \\
        --durations Charades_v1_train.csv Charades_v1_test.csv --features vgg_rgb_features.hdf5

With --annotations DIR instead of the first two, DIR holds train.json and test.json as MMN publishes
them. README.md beside this script says where from.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets.prepare import prepare_dataset, prepare_parser
from mmn_plugin.errors import InputError, plain_errors

EXPECTED = dict(train=(5_336, 12_404), test=(1_334, 3_720))


def read_durations(paths: list[Path]) -> dict[str, float]:
    """Video id -> seconds, from Charades' own tables (columns ``id`` and ``length``)."""
    durations = {}
    for path in paths:
        with open(path, newline='', encoding='utf-8') as file:
            table = csv.DictReader(file)
            if not {'id', 'length'} <= set(table.fieldnames or ()):
                raise InputError(
                    f'{path} has no columns "id" and "length"; is it a Charades_v1_*.csv?'
                )
            durations.update((row['id'], float(row['length'])) for row in table)
    return durations


def convert(path: Path, durations: dict[str, float]) -> dict:
    """One file of lines ``<video> <start> <end>##<sentence>`` in the format of the other datasets.

    As in 2D-TAN, a moment ends with its video at the latest, and one that has then no length is
    left out.
    """
    videos = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip():
            continue
        try:
            place, sentence = line.split('##', 1)
            video_id, start, end = place.split()
            start, end = float(start), float(end)
        except ValueError:
            raise InputError(
                f'{path}, line {number}: {line!r} is not "<video> <start> <end>##<sentence>"'
            ) from None
        if video_id not in durations:
            raise InputError(
                f'{path}, line {number}: video {video_id!r} is in none of the files '
                'given with --durations'
            )
        duration = durations[video_id]
        end = min(end, duration)
        if start < end:
            empty = dict(duration=duration, timestamps=[], sentences=[])
            video = videos.setdefault(video_id, empty)
            video['timestamps'].append([start, end])
            video['sentences'].append(sentence)
    return videos


def main() -> int:
    """Convert, gather and verify; returns the exit code."""
    parser = prepare_parser(__doc__, 'data/charades_sta')
    add = parser.add_argument
    text = 'charades_sta_train.txt and charades_sta_test.txt'
    add('--sta', type=Path, nargs=2, metavar=('TRAIN', 'TEST'), help=text)
    text = 'Charades_v1_train.csv and Charades_v1_test.csv'
    add('--durations', type=Path, nargs='+', default=[], help=text)
    add('--annotations', type=Path, help='folder with train.json and test.json')
    args = parser.parse_args()
    if bool(args.sta and args.durations) == bool(args.annotations):
        parser.error('give either --sta and --durations, or --annotations')
    for path in [*(args.sta or ()), *args.durations]:
        if not path.is_file():
            parser.error(f'{path} does not exist')
    with plain_errors(), tempfile.TemporaryDirectory() as folder:
        annotations = args.annotations
        if annotations is None:
            annotations = Path(folder)
            durations = read_durations(args.durations)
            for split, path in zip(EXPECTED, args.sta, strict=True):
                (annotations / f'{split}.json').write_text(json.dumps(convert(path, durations)))
        files = {split: annotations / f'{split}.json' for split in EXPECTED}
        return prepare_dataset(args, files, 'vgg_rgb_features.hdf5', 4096, EXPECTED)


if __name__ == '__main__':
    sys.exit(main())
