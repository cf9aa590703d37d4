"""Convert a checkpoint of the published MMN code to this package's names, or back.

    python tools/model_converters/mmn_to_mmengine.py published.pth OUT.pth
    python tools/model_converters/mmn_to_mmengine.py --reverse ours.pth OUT.pth

Only the weights are carried over; optimiser and schedule of the published code have no use here.
"""
import argparse
import pickle
import sys
from pathlib import Path

import torch

try:
    import mmn_plugin
except ModuleNotFoundError:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import mmn_plugin

from mmn_plugin.models.published_weights import from_published, to_published


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, help='checkpoint to convert')
    parser.add_argument('out', type=Path, help='file to write')
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
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        sys.exit(f'{path} was not loaded, it holds more than tensors and plain data: {error}')
    except (RuntimeError, EOFError) as error:
        sys.exit(f'{path} is damaged or not a PyTorch checkpoint: {error}')
    weights = content.get(key, content) if isinstance(content, dict) else None
    if not weights or not all(torch.is_tensor(value) for value in weights.values()):
        sys.exit(f'{path} holds no weights: expected a dict of tensors, at its top level or under '
                 f'{key!r}')
    return weights


def main() -> None:
    """Convert one file."""
    args = parse_args()
    ours, published = 'state_dict', 'model'
    weights = load_weights(args.checkpoint, ours if args.reverse else published)
    try:
        converted = to_published(weights) if args.reverse else from_published(weights)
    except KeyError as error:
        sys.exit(f'{args.checkpoint}: {error.args[0]}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.reverse:
        torch.save({published: converted}, args.out)
    else:
        meta = dict(converted_from=args.checkpoint.name, mmn_plugin_version=mmn_plugin.__version__)
        torch.save({ours: converted, 'meta': meta}, args.out)
    print(f'{args.out}: {len(converted)} tensors')


if __name__ == '__main__':
    main()
