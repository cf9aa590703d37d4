"""Measure the presence below which a sentence counts as absent from a video.

    python tools/analysis_tools/calibrate_presence.py CHECKPOINT --out FOLDER

Takes the sentences of the config's validation set that occur in their videos as present, and those
that do not, and some of other videos, as absent; the threshold keeps a share of the present ones,
and rises with a video's length so that the share of the absent ones that pass stays. FOLDER is then
a model with its threshold (from_pretrained, and --checkpoint of the tools).
"""

import argparse

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.presence import calibrate_presence, threshold_at
from mmn_plugin.cli.main import add_config_options, add_device, tool_parser
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_folder


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add('checkpoint', help='checkpoint (.pth)')
    add('--config', help="a config (default: the checkpoint's own)")
    add('--out', required=True, type=writable_folder, help='folder to write')
    text = 'share of the present sentences that stay (default: 0.95)'
    add('--keep', type=float, default=0.95, help=text)
    add_device(parser)
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, and write the model."""
    args = parse_args()
    with plain_errors():
        config = None if args.config is None else load_config(args.config, args.cfg_options)
        inferencer = GroundingInferencer(config, args.checkpoint, args.device)
        dataset = build_dataset(inferencer.config, 'val')
        found = calibrate_presence(inferencer, dataset, args.keep)
        inferencer.save_pretrained(args.out)
        print(
            f'threshold {found["threshold"]:.4f} (in a video of ten windows '
            f'{threshold_at(found, 10):.4f}) on {found["present"]} present and '
            f'{found["absent"]} absent sentences (AUROC {found["auroc"]:.3f}): keeps '
            f'{100 * found["keep"]:.0f} % of the present, {100 * found["absent_kept"]:.1f} % of '
            f'the absent\n{args.out}'
        )


if __name__ == '__main__':
    main()
