"""A trained model as a folder: config, weights, tokenizer and a model card."""

import json
import os
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import Config
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmn_plugin.files import OutputError, writable_folder
from mmn_plugin.version import __version__

from .checkpoint_config import require_plain_types
from .model_card import model_card

FORMAT, VERSION = 'mmn_plugin/model', 1
CONFIG, WEIGHTS, TOKENIZER_FILE, CARD = (
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'README.md',
)


def write_folder(folder: str | Path, config: Config, model, meta: dict) -> None:
    """Write a model; what is written needs nothing of this machine's to be used.

    Args:
        folder (str | Path): Made if it is not there; a model in it is replaced.
        config (Config): Of the model.
        model (nn.Module): With ``data_preprocessor.tokenizer`` and ``text_encoder``.
        meta (dict): What else belongs to the model, plain data.

    Raises:
        ValueError: If the config holds more than plain data.
        OutputError: If the folder cannot be written into, or holds files of these names that are
            not a model's.
    """
    folder = writable_folder(os.fsdecode(folder))
    _require_no_others(folder)
    state = model.data_preprocessor.tokenizer.state()
    content = dict(
        format=FORMAT,
        version=VERSION,
        mmn_plugin=__version__,
        config=_portable(config, model),
        tokenizer={key: value for key, value in state.items() if key != 'tokenizer'},
        meta=meta,
    )
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'the config cannot be written as JSON ({error}): only numbers, strings, '
            'lists and dicts can'
        ) from error
    weights = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(text + '\n', encoding='utf-8')  # first: it says whose they are
    save_file(weights, folder / WEIGHTS, metadata=dict(format='pt'))
    (folder / TOKENIZER_FILE).write_text(state['tokenizer'], encoding='utf-8')
    (folder / CARD).write_text(model_card(content), encoding='utf-8')


def _require_no_others(folder: Path) -> None:
    """Refuse a folder with a README.md, say, that is none of a model's."""
    found = [name for name in (CONFIG, WEIGHTS, TOKENIZER_FILE, CARD) if (folder / name).exists()]
    with suppress(OSError, ValueError, AttributeError):
        if json.loads((folder / CONFIG).read_bytes()).get('format') == FORMAT:
            return
    if found:
        raise OutputError(
            f'{folder / found[0]} is there and was not written by save_pretrained: '
            'nothing is replaced. Move it away, or choose another folder'
        )


def _portable(config: Config, model) -> dict:
    """The parts of a config that inference needs, the language model as its configuration."""
    parts = {key: config[key] for key in ('model', 'extractor', 'long_video') if key in config}
    parts = Config(parts)._cfg_dict.to_dict()
    text = parts['model']['text_encoder']
    text.pop('name_or_path', None)
    text['config'] = model.text_encoder.language_model
    for source in ('vocab', 'name_or_path'):  # it lies in the folder
        parts['model']['data_preprocessor']['tokenizer'].pop(source, None)
    pipeline = Config(dict(pipeline=config.test_dataloader.dataset.pipeline))._cfg_dict.to_dict()
    parts['test_dataloader'] = dict(dataset=pipeline)
    return parts


def is_folder(path: str | Path) -> bool:
    """Whether a path is what `write_folder` makes."""
    return (Path(os.fsdecode(path)) / CONFIG).is_file()


def read_folder(folder: str | Path) -> tuple[Config, dict]:
    """Config and checkpoint of a folder.

    Args:
        folder (str | Path): From `write_folder`.

    Returns:
        tuple[Config, dict]: The config, and ``meta`` and ``state_dict`` as a checkpoint has them.

    Raises:
        FileNotFoundError: If a file of it is missing.
        ValueError: If a file is damaged, or of another kind or version.
    """
    folder = Path(folder)
    absent = [name for name in (CONFIG, WEIGHTS, TOKENIZER_FILE) if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f'the model folder {folder} lacks {", ".join(absent)}')
    try:
        content = json.loads((folder / CONFIG).read_text(encoding='utf-8'))
        kind = content.get('format'), content.get('version')
        if kind == (FORMAT, VERSION):
            config, tokenizer, meta = (
                dict(content[key]) for key in ('config', 'tokenizer', 'meta')
            )
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'{folder / CONFIG} is damaged: {error}') from None
    if kind != (FORMAT, VERSION):
        raise ValueError(
            f'{folder / CONFIG} is no model of mmn_plugin that this release reads: '
            f'format {kind[0]!r}, version {kind[1]!r}'
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{folder / WEIGHTS} is damaged: {error}') from None
    config = Config(config)
    require_plain_types(config, str(folder))
    tokenizer['tokenizer'] = (folder / TOKENIZER_FILE).read_text(encoding='utf-8')
    return config, dict(meta=dict(meta, tokenizer=tokenizer), state_dict=weights)


def plain_meta(meta: dict) -> dict:
    """What of a checkpoint's ``meta`` travels: all plain data but the run's own."""
    left_out = ('cfg', 'tokenizer', 'hook_msgs', 'run_state', 'experiment_name', 'time')
    kept = {}
    for key, value in meta.items():
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            continue
        if key not in left_out and same and not torch.is_tensor(value):
            kept[key] = value
    return kept
