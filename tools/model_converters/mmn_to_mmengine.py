"""Convert a checkpoint of the published MMN code to this package's names, or back.

    python tools/model_converters/mmn_to_mmengine.py published.pth OUT.pth
    python tools/model_converters/mmn_to_mmengine.py --reverse ours.pth OUT.pth

Only the weights are carried over; optimiser and schedule of the published code have no use here.
"""

import argparse
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmengine.runner import CheckpointLoader

import mmn_plugin
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
        SystemExit: If the file cannot be read as a dict of tensors.
    """
    if not path.is_file():
        sys.exit(f'{path} does not exist')
    try:
        content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')
    except pickle.UnpicklingError as error:  # its message names the file
        sys.exit(str(error))
    except (RuntimeError, OSError) as error:
        sys.exit(f'{path} cannot be read: {first_line(error)}')
    weights = content.get(key, content) if isinstance(content, dict) else None
    if not weights or not is_weights(weights):
        sys.exit(
            f'{path} holds no weights: expected a dict of tensors, at its top level or under '
            f'{key!r}'
        )
    return weights


def is_weights(content) -> bool:
    """Whether this is a dict of tensors by name."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in content.items()
    )


def first_line(error: Exception) -> str:
    """An error's text up to its first line break."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def main() -> None:
    """Convert one file."""
    args = parse_args()
    ours, published = 'state_dict', 'model'
    weights = load_weights(args.checkpoint, ours if args.reverse else published)
    try:
        converted = to_published(weights) if args.reverse else from_published(weights)
    except KeyError as error:
        sys.exit(f'{args.checkpoint}: {error.args[0]}')
    if args.reverse:
        content = {published: converted}
    else:
        meta = dict(converted_from=args.checkpoint.name, mmn_plugin_version=mmn_plugin.__version__)
        content = {ours: converted, 'meta': meta}
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, args.out)
    except (RuntimeError, OSError) as error:
        sys.exit(f'{args.out} cannot be written: {first_line(error)}')
    print(f'{args.out}: {len(converted)} tensors')


if __name__ == '__main__':
    main()
