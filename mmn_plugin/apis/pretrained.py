"""Models with their configs: checkpoints, folders, names."""

import copy
import difflib
import json
import os
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import yaml
from jinja2 import Template
from mmaction.registry import MODELS, TOKENIZER
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mmn_plugin.config import (
    apply_tf32,
    config_errors,
    load_config,
    needs_weights,
    require_checkpoint,
    require_checkpoint_content,
    require_device,
)
from mmn_plugin.datasets import single_configs
from mmn_plugin.engine import CheckpointIdentity, checkpoint_config, require_plain_types
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.files import OutputError, package_data_root, writable_folder
from mmn_plugin.hub import published_name
from mmn_plugin.version import __version__

from .long_video import LongVideo


def named_models() -> dict[str, dict]:
    """Entries of this package's model index by name."""
    root = package_data_root()
    index = yaml.safe_load((root / 'model-index.yml').read_text(encoding='utf-8'))
    pages = [yaml.safe_load((root / path).read_text(encoding='utf-8')) for path in index['Import']]
    return {entry['Name']: entry for page in pages for entry in page['Models']}


def resolve_model(
    config: str | Path | Config | None, checkpoint: str | Path | None
) -> tuple[Config | None, str | None]:
    """Config and checkpoint from what a user gave.

    Args:
        config (str | bytes | PathLike | Config, optional): A name of the model index, the path or
            name of a config, or a config. None: the checkpoint's own.
        checkpoint (str | bytes | PathLike, optional): None: the weights of the entry in the model
            index.

    Returns:
        tuple[Config | None, str | None]: Both; the config None if it was; the checkpoint None of a
        model that needs none.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If no checkpoint was given, none is known, and the model needs one, or the
            config has no model.
    """
    entry = None
    if isinstance(config, bytes):
        config = os.fsdecode(config)
    if isinstance(config, str) and Path(config).suffix != '.py':
        entry = named_models().get(config.lower())
        if entry is not None:
            weights = entry.get('Weights')
            checkpoint = checkpoint or (weights[0] if isinstance(weights, list) else weights)
            config = str(package_data_root() / entry['Config'])
        elif not Path(config).exists():
            raise MissingFileError(_no_such_model(config))
    if config is not None and not isinstance(config, Config):
        config = load_config(config)
    if config is not None:
        require_model(config)
    if checkpoint is None and (config is None or needs_weights(config)):
        raise InputError(
            f'no weights of {entry["Name"]!r} are published: give checkpoint=, '
            'one that was trained with its config'
            if entry
            else 'no checkpoint was given: give the file (.pth) or folder of a trained model, or '
            f'one of the models that need no training: {", ".join(untrained_models())}'
        )
    return config, None if checkpoint is None else os.fsdecode(checkpoint)


def _no_such_model(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), named_models(), n=1)
    hint = f'did you mean {near[0]!r}? Give' if near else 'give'
    return f'there is no model {name!r}; {hint} the path of a config, or one of ' + ', '.join(
        named_models()
    )


def untrained_models() -> list[str]:
    """Names of the models of this package that need no checkpoint."""
    root = package_data_root()
    return [
        name
        for name, entry in named_models().items()
        if not needs_weights(Config.fromfile(root / entry['Config'], import_custom_modules=False))
    ]


def require_model(config: Config) -> None:
    """Raise an `InputError` if a config describes no model."""
    if 'model' not in config:
        raise InputError(f'{config.filename or "the config"} lacks the setting `model`')


def _own_parts(config: Config) -> list[str]:
    """Modules of this package that ``custom_imports`` names; a foreign config imports no others."""
    imports = (config.get('custom_imports') or {}).get('imports') or []
    names = [imports] if isinstance(imports, str) else imports
    return [name for name in names if re.fullmatch(r'mmn_plugin(\.\w+)*', str(name))]


def _import_own_parts(config: Config) -> None:
    """Register what the config needs, such as the extractor of Shapes."""
    for name in _own_parts(config):
        import_module(name)


FORMAT, VERSION = 'mmn_plugin/model', 1
CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
TOKENIZER_FILE, CARD = 'tokenizer.json', 'README.md'
KEPT = ('model', 'extractor', 'long_video', 'library')  # parts of a config that inference needs


def write_folder(folder: str | Path, config: Config, model, meta: dict) -> None:
    """Write a model; what is written needs nothing of this machine's to be used.

    Args:
        folder (str | Path): Made if it is not there; a model in it is replaced.
        config (Config): Of the model.
        model (nn.Module): A localizer.
        meta (dict): What else belongs to the model, plain data. Of a tower its fingerprint is
            added: the tower itself is not written. Of a model of Hugging Face that is a folder
            here only the last name is kept.

    Raises:
        ValueError: If the config holds more than plain data.
        OutputError: If the folder cannot be written into, or holds files of these names that are
            not a model's.
    """
    folder = writable_folder(os.fsdecode(folder))
    _require_no_others(folder)
    tokenizer = model.data_preprocessor.tokenizer
    state = {} if tokenizer is None else tokenizer.state()
    meta = copy.deepcopy(meta)
    if model.head.tower_spaces and 'tower' not in meta:
        meta['tower'] = model.tower.fingerprint
    for fingerprint in (*(meta.get('extractor') or ()), meta.get('tower')):
        _publish((fingerprint or {}).get('config') or {})
    content = dict(
        format=FORMAT,
        version=VERSION,
        mmn_plugin=__version__,
        config=portable(config, model),
        tokenizer={key: value for key, value in state.items() if key != 'tokenizer'},
        meta=meta,
    )
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
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
    if state:
        (folder / TOKENIZER_FILE).write_text(state['tokenizer'], encoding='utf-8')
    (folder / CARD).write_text(model_card(content), encoding='utf-8')


def model_card(content: dict) -> str:
    """README.md of a saved model, from what its ``config.json`` holds."""
    config = content['config']
    model, long_video = config['model'], LongVideo(**config.get('long_video') or {})
    template = Template(Path(__file__).with_name('model_card.md').read_text(encoding='utf-8'))
    return template.render(
        version=content['mmn_plugin'],
        model=model,
        num_clips=model.get('grid', model)['num_clips'],  # without a grid clips are scored
        tower=model.get('tower') if 'tower' in content['meta'] else None,
        extractor=config.get('extractor'),
        max_length=content['tokenizer'].get('max_length'),
        presence=content['meta'].get('presence'),
        window=long_video.window,
        longest=long_video.longest,
    )


def _require_no_others(folder: Path) -> None:
    """Refuse a folder with a README.md, say, that is none of a model's."""
    with suppress(OSError, ValueError, AttributeError):
        if json.loads((folder / CONFIG).read_bytes()).get('format') == FORMAT:
            return
    for name in (CONFIG, WEIGHTS, TOKENIZER_FILE, CARD):
        if (folder / name).exists():
            raise OutputError(
                f'{folder / name} is there and was not written by save_pretrained: '
                'nothing is replaced. Move it away, or choose another folder'
            )


def portable(config: Config, model) -> dict:
    """The parts of a config that inference needs, the language model as its configuration."""
    parts = {key: config[key] for key in KEPT if key in config}
    parts = Config(parts)._cfg_dict.to_dict()
    for part in (parts.get('extractor') or {}, parts['model'].get('tower') or {}):
        if part.get('rewrite') is not None:
            raise InputError(
                'model.tower.rewrite is a function, which no folder can hold: leave it out, '
                'and give rewrite= to the inferencer'
            )
        _publish(part)
    parts['custom_imports'] = dict(imports=_own_parts(config))
    text = parts['model'].get('text_encoder')
    if text is not None:
        text.pop('name_or_path', None)
        text['config'] = model.text_encoder.language_model
        for source in ('vocab', 'name_or_path'):  # it lies in the folder
            parts['model']['data_preprocessor']['tokenizer'].pop(source, None)
    pipeline = next(single_configs(config.test_dataloader.dataset)).pipeline
    pipeline = Config(dict(pipeline=pipeline))._cfg_dict.to_dict()
    parts['test_dataloader'] = dict(dataset=pipeline)
    return parts


def _publish(part: dict) -> None:
    """Leave the folders of this machine out of the settings of a tower or an extractor."""
    part.pop('root', None)
    if 'model' in part:
        part['model'] = published_name(part['model'])


def is_folder(path: str | Path) -> bool:
    """Whether a path is what `write_folder` makes."""
    return (Path(os.fsdecode(path)) / CONFIG).is_file()


def read_folder(folder: str | Path) -> tuple[Config, dict]:
    """Config, and ``meta`` and ``state_dict`` as a checkpoint has them, of `write_folder`.

    Raises:
        FileNotFoundError: If a file of it is missing.
        ValueError: If a file is damaged, or of another kind or version.
    """
    folder = Path(folder)
    _require_files(folder, CONFIG, WEIGHTS)
    try:
        content = json.loads((folder / CONFIG).read_text(encoding='utf-8'))
        kind = content.get('format'), content.get('version')
        if kind == (FORMAT, VERSION):
            config, tokenizer, meta = (
                dict(content[key]) for key in ('config', 'tokenizer', 'meta')
            )
            if tokenizer:
                _require_files(folder, TOKENIZER_FILE)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f'{folder / CONFIG} is damaged: {error}') from None
    if kind != (FORMAT, VERSION):
        raise InputError(
            f'{folder / CONFIG} is no model of mmn_plugin that this release reads: '
            f'format {kind[0]!r}, version {kind[1]!r}'
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f'{folder / WEIGHTS} is damaged: {error}') from None
    config = Config(config)
    require_plain_types(config, str(folder))
    _import_own_parts(config)
    if tokenizer:
        tokenizer['tokenizer'] = (folder / TOKENIZER_FILE).read_text(encoding='utf-8')
        meta['tokenizer'] = tokenizer
    return config, dict(meta=meta, state_dict=weights)


def _require_files(folder: Path, *names: str) -> None:
    """Raise a `MissingFileError` that names the files that a model's folder lacks."""
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise MissingFileError(f'the model folder {folder} lacks {", ".join(absent)}')


def plain_meta(meta: dict) -> dict:
    """What of a checkpoint's ``meta`` travels: all plain data but the run's own."""
    left_out = ['cfg', 'settings', 'tokenizer', 'hook_msgs', 'run_state', 'experiment_name', 'time']
    kept = {}
    for key, value in meta.items():
        with suppress(TypeError, ValueError):
            if key not in left_out and json.loads(json.dumps(value, allow_nan=False)) == value:
                kept[key] = value
    return kept


def read_checkpoint(path: str | None, config: Config | None = None) -> tuple[Config, dict]:
    """Config and content of a checkpoint.

    Args:
        path (str | None): A .pth file, a URL, or a folder of `save_pretrained`; None, with a
            config, of a model that needs no weights.
        config (Config, optional): Taken instead of the one it carries. Defaults to None.

    Returns:
        tuple[Config, dict]: The config, in which language model and tokenizer are the checkpoint's
        own where it is the checkpoint's; and its ``meta`` and ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the file is no checkpoint, or carries no config and none is given.
    """
    if path is None:
        return config, {}
    if is_folder(path):
        own, loaded = read_folder(path)
        return config or own, loaded
    path = require_checkpoint(path)
    loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    require_checkpoint_content(loaded, path)
    if config is None:
        config = checkpoint_config(loaded, path)
        _import_own_parts(config)
        text = config.get('model', {}).get('text_encoder')
        language_model = CheckpointIdentity.of(loaded).language_model
        if text is not None and language_model is not None:  # neither hub nor folder is asked
            text.pop('name_or_path', None)
            text.config = language_model
    return config, loaded


def load_model(config: Config, checkpoint: str, device: str) -> nn.Module:
    """A config's model in evaluation mode, with all its weights, under the checks of a test.

    The tokenizer that the checkpoint carries serves where the configured one cannot be built. The
    config's ``env_cfg.allow_tf32`` is applied to this process, as by a test.

    Args:
        config (Config): With ``model``.
        checkpoint (str | bytes | PathLike): Path or URL.
        device (str): Where the model goes.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no vocabulary in either.
        ValueError: If the checkpoint belongs to another architecture or another vocabulary, the
            file is no checkpoint, the config has no model, or the device cannot be used.
    """
    require_model(config)
    require_device(device)
    checkpoint = os.fsdecode(checkpoint)
    return build_model(config, read_checkpoint(checkpoint, config)[1], checkpoint, device)


def build_model(
    config: Config, loaded: dict, path: str | None, device: str, own_tokenizer: bool = False
) -> nn.Module:
    """As `load_model`, from what `read_checkpoint` gives.

    Args:
        config (Config): With ``model``.
        loaded (dict): ``meta`` and ``state_dict``, or weights alone.
        path (str | None): Where it came from, for messages; None where nothing is loaded.
        device (str): Where the model goes.
        own_tokenizer (bool): Take the checkpoint's tokenizer whatever the config says. Defaults to
            False.
    """
    require_model(config)
    apply_tf32(config)
    with config_errors(config):
        model = MODELS.build(config.model)
    if path is None:
        return model.to(device).eval()
    identity = CheckpointIdentity.of(loaded)
    if own_tokenizer and identity.tokenizer is not None:
        model.data_preprocessor.tokenizer = TOKENIZER.get('SentenceTokenizer').from_state(
            identity.tokenizer
        )
    weights = CheckpointIdentity.check(model, loaded, path)
    load_state_dict(model, weights, strict=True, logger='silent')
    _ = model.data_preprocessor.tokenizer  # a missing vocabulary shows now, not at a sentence
    return model.to(device).eval()
