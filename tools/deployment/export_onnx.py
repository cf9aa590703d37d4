"""Export a model to ONNX, videos and sentences apart, and compare it with PyTorch.

    python tools/deployment/export_onnx.py CHECKPOINT --out DIR

Writes DIR/video.onnx (pooled features to moments), DIR/text.onnx (token ids to sentences),
DIR/tokenizer.json and DIR/model.json (how a score is made of the two, and which moments there are),
then runs both in onnxruntime. Needs pip install "mmn_plugin[onnx]".
"""

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.export import check_onnx, export_onnx
from mmn_plugin.cli.main import tool_parser
from mmn_plugin.errors import OperationError, plain_errors
from mmn_plugin.files import writable_folder

TOLERANCE = 1e-4  # largest difference from PyTorch


def main() -> None:
    """Export, and compare."""
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add('checkpoint', help='checkpoint (.pth) or folder of save_pretrained')
    add('--config', help="a config (default: the checkpoint's own)")
    add('--out', required=True, type=writable_folder, help='folder for the files')
    args = parser.parse_args()
    with plain_errors():
        inferencer = GroundingInferencer(args.config, args.checkpoint, 'cpu')
        paths = export_onnx(inferencer, args.out)
        found = check_onnx(inferencer, args.out)
        for name, difference in found.items():
            print(f'{name}: differs from PyTorch by {difference:.1e} at most')
        worst = max(found.values())
        if not worst <= TOLERANCE:
            raise OperationError(
                f'onnxruntime differs from PyTorch by {worst:.1e}, more than {TOLERANCE:g}: do not '
                f'use {args.out}'
            )
        for path in paths:
            print(path)


if __name__ == '__main__':
    main()
