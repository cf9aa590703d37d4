"""Convert a checkpoint of the published MMN code to this package's names, or back.

    python tools/model_converters/mmn_to_mmengine.py published.pth OUT.pth
    python tools/model_converters/mmn_to_mmengine.py --reverse ours.pth OUT.pth

Only the weights are carried over; optimizer and schedule of the published code have no use here.
"""

import argparse
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader

import mmn_plugin
from mmn_plugin.errors import InputError, MissingFileError, OperationError, plain_errors
from mmn_plugin.files import writable_file
from mmn_plugin.models.published_weights import from_published, to_published


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, help='checkpoint to convert')
    parser.add_argument('out', type=writable_file, help='file to write')
    parser.add_argument('--reverse', action='store_true', help='from ours to the published names')
    return parser.parse_args()


def load_weights(path: Path, key: str) -> dict:
    """The tensors of a checkpoint, found under ``key`` or at its top level.

    Raises:
        UserError: If the file cannot be read as a dict of tensors.
    """
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist')
    content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')
    weights = content.get(key, content) if isinstance(content, dict) else None
    if not weights or not is_weights(weights):
        raise InputError(
            f'{path} holds no weights: expected a dict of tensors, at its top level or under '
            f'{key!r}'
        )
    return weights


def is_weights(content) -> bool:
    """Whether this is a dict of tensors by name."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in content.items()
    )


def convert(args: argparse.Namespace) -> int:
    """Convert one file; returns how many tensors it has."""
    ours, published = 'state_dict', 'model'
    weights = load_weights(args.checkpoint, ours if args.reverse else published)
    try:
        converted = to_published(weights) if args.reverse else from_published(weights)
    except KeyError as error:
        raise InputError(f'{args.checkpoint}: {error.args[0]}') from None
    if args.reverse:
        content = {published: converted}
    else:
        meta = dict(converted_from=args.checkpoint.name, mmn_plugin_version=mmn_plugin.__version__)
        content = {ours: converted, 'meta': meta}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(content, args.out)
    except RuntimeError as error:  # such as a full disk
        raise OperationError(f'{args.out} cannot be written: {error}') from None
    return len(converted)


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with plain_errors():
        number = convert(args)
        print(f'{args.out}: {number} tensors')


if __name__ == '__main__':
    main()
