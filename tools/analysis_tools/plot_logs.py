"""Draw losses and metrics of one or several runs from their logs.

    python tools/analysis_tools/plot_logs.py work_dirs/mmn_shapes work_dirs/other --out curves.png
    python tools/analysis_tools/plot_logs.py work_dirs/mmn_shapes --keys loss "grounding/R5@*" lr

A work directory's resumed starts are joined. Curves come from vis_data/scalars.json, which the
LocalVisBackend of MMEngine writes.
"""

import argparse

import mmn_plugin  # noqa: F401
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import OutputFolder, writable_file
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.curves import DEFAULT_KEYS, TrainingLog, draw_training_curves


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'runs',
        nargs='+',
        help='work directories, their time-stamped folders, or scalars.json files',
    )
    parser.add_argument(
        '--keys',
        nargs='+',
        default=DEFAULT_KEYS,
        help='figures to draw, * for any part (default: losses, R@1 and mIoU, or vIoU)',
    )
    parser.add_argument('--names', nargs='+', help="the runs' names (default: their folders')")
    parser.add_argument(
        '--out', default='curves.png', type=writable_file, help='picture (default: curves.png)'
    )
    args = parser.parse_args(argv)
    if args.names and len(args.names) != len(args.runs):
        parser.error(f'{len(args.names)} names for {len(args.runs)} runs')
    return args


def main(argv=None):
    """Draw."""
    args = parse_args(argv)
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
