"""The model in a library: what a search needs of it, and what tells it from others."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.pretrained import portable
from mmn_plugin.errors import InputError
from mmn_plugin.features.feature_file import differences
from mmn_plugin.features.lazy_network import digest

MODEL, TOWER = 'model', 'tower'
IGNORED = ('top_n',)  # settings of a head that decide nothing here


def write_model(folder: Path, inferencer: GroundingInferencer) -> None:
    """Write what a search needs into the folder ``model`` of a library: what `save_pretrained`
    writes, and in ``model/tower`` the files of a tower.

    The tower is copied whole: its fingerprint is of all its weights, and videos that are added
    later need its other side.

    Args:
        folder (Path): The library's.
        inferencer (GroundingInferencer): The model.
    """
    unfinished = folder / f'{MODEL}.part'
    shutil.rmtree(unfinished, ignore_errors=True)
    inferencer.save_pretrained(unfinished)
    if inferencer.model.head.tower_spaces:
        inferencer.model.tower.copy_files(unfinished / TOWER)
    shutil.rmtree(folder / MODEL, ignore_errors=True)
    os.replace(unfinished, folder / MODEL)


def read_model(folder: Path, device: str | None = None) -> GroundingInferencer:
    """The model that `write_model` wrote."""
    tower = folder / MODEL / TOWER
    root = tower if tower.is_dir() else None
    return GroundingInferencer.from_pretrained(folder / MODEL, device=device, model_root=root)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the model, by its path in the library."""
    digests = {}
    for path in sorted((folder / MODEL).rglob('*')):
        if path.is_file():
            with open(path, 'rb') as file:
                digest = hashlib.file_digest(file, 'sha256').hexdigest()
            digests[path.relative_to(folder).as_posix()] = digest
    return digests


def identity_of(inferencer: GroundingInferencer) -> dict:
    """What tells a model from others, as plain data: its settings, weights, tokenizer, tower."""
    model = inferencer.model
    settings = portable(inferencer.config, model)['model']
    settings['head'] = {k: v for k, v in settings['head'].items() if k not in IGNORED}
    tokenizer = model.data_preprocessor.tokenizer
    words = '' if tokenizer is None else json.dumps(tokenizer.state(), sort_keys=True)
    return dict(
        settings=json.loads(json.dumps(settings)),
        weights=digest(model),
        tokenizer=hashlib.sha256(words.encode()).hexdigest()[:16],
        tower=model.tower.fingerprint if model.head.tower_spaces else None,
    )


def require_same_model(theirs: dict, ours: dict, library: Path) -> None:
    """Refuse another model than a library's.

    Args:
        theirs (dict): `identity_of` the library's.
        ours (dict): That of the other.
        library (Path): For the message.

    Raises:
        ValueError: If they differ; it says in what.
    """
    if theirs == ours:
        return
    found = []
    if theirs['settings'] != ours['settings']:
        one, other = (dict(_leaves(part['settings'])) for part in (theirs, ours))
        names = [name for name in one | other if one.get(name) != other.get(name)]
        found += [f'{name} {one.get(name)}, here {other.get(name)}' for name in names[:3]]
    if theirs['weights'] != ours['weights']:
        found.append(f'weights {theirs["weights"]}, here {ours["weights"]}')
    if theirs['tokenizer'] != ours['tokenizer']:
        found.append('its vocabulary')
    if theirs['tower'] != ours['tower']:
        found += differences(theirs['tower'] or {}, ours['tower'] or {})
    raise InputError(
        f'{library} was made by another model: {"; ".join(found)}. Its moments cannot be compared '
        "with those of this one: leave the model out to use the library's own, or make another "
        'library'
    )


def _leaves(value, name: str = '') -> list[tuple[str, object]]:
    """Dotted names of all settings, with their values."""
    if not isinstance(value, dict):
        return [(name.lstrip('.'), value)]
    return [leaf for key, part in value.items() for leaf in _leaves(part, f'{name}.{key}')]
