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


def load_weights(path: Path, key: str) -> dict:
    """The tensors of a checkpoint, found under ``key`` or at its top level.

    Raises:
        UserError: If the file cannot be read as a dict of tensors.
    """
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist')
    content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')
    weights = content.get(key, content) if isinstance(content, dict) else None
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(isinstance(k, str) and torch.is_tensor(value) for k, value in weights.items())
    ):
        raise InputError(
            f'{path} holds no weights: expected a dict of tensors, at its top level or under '
            f'{key!r}'
        )
    return weights


def convert(source: Path, reverse: bool) -> dict:
    """The content of the converted checkpoint."""
    weights = load_weights(source, 'state_dict' if reverse else 'model')
    try:
        if reverse:
            return dict(model=to_published(weights))
        meta = dict(converted_from=source.name, mmn_plugin_version=mmn_plugin.__version__)
        return dict(state_dict=from_published(weights), meta=meta)
    except KeyError as error:
        raise InputError(f'{source}: {error.args[0]}') from None


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, help='checkpoint to convert')
    parser.add_argument('out', type=writable_file, help='file to write')
    parser.add_argument('--reverse', action='store_true', help='from ours to the published names')
    args = parser.parse_args()
    with plain_errors():
        content = convert(args.checkpoint, args.reverse)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save(content, args.out)
        except RuntimeError as error:  # such as a full disk
            raise OperationError(f'{args.out} cannot be written: {error}') from None
        print(f'{args.out}: {len(content["model" if args.reverse else "state_dict"])} tensors')


if __name__ == '__main__':
    main()
