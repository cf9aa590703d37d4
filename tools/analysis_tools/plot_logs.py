"""Draw losses and metrics of one or several runs from their logs.

    python tools/analysis_tools/plot_logs.py work_dirs/mmn_shapes work_dirs/other --out curves.png
    python tools/analysis_tools/plot_logs.py work_dirs/mmn_shapes --keys loss "grounding/R5@*" lr

A work directory's resumed starts are joined. Curves come from vis_data/scalars.json, which the
LocalVisBackend of MMEngine writes.
"""

import argparse

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import tool_parser
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import OutputFolder, writable_file
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.curves import DEFAULT_KEYS, TrainingLog, draw_training_curves


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add('runs', nargs='+', help='work folders, their time-stamped folders, or scalars.json files')
    text = 'figures to draw, * for any part (default: losses, R@1 and mIoU, or vIoU)'
    add('--keys', nargs='+', default=DEFAULT_KEYS, help=text)
    add('--names', nargs='+', help="the runs' names (default: their folders')")
    text = 'picture (default: curves.png)'
    add('--out', default='curves.png', type=writable_file, help=text)
    args = parser.parse_args()
    if args.names and len(args.names) != len(args.runs):
        parser.error(f'{len(args.names)} names for {len(args.runs)} runs')
    return args


def main() -> None:
    """Draw."""
    args = parse_args()
    with plain_errors():
        folder, files = OutputFolder(args.out.parent), {args.out.name: None}
        folder.claim(files)
        logs = [TrainingLog(run) for run in args.runs]
        for log, name in zip(logs, args.names or [log.name for log in logs], strict=True):
            log.name = name
        image = draw_training_curves(logs, args.keys)
        with folder.writing(files):
            GroundingVisualizer.save_image(image, args.out)
        print(args.out)


if __name__ == '__main__':
    main()
