"""A trained model from its checkpoint."""

import os
import re
from types import SimpleNamespace

from mmaction.registry import MODELS, TOKENIZER
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from torch import nn

from mmn_plugin.engine.hooks import ArchitectureHook, ExtractorHook, TokenizerHook
from mmn_plugin.engine.runner import (
    CheckpointCheckHook,
    apply_tf32,
    require_checkpoint,
    require_checkpoint_content,
    require_device,
)

from .checkpoint_config import checkpoint_config
from .pretrained_folder import is_folder, read_folder


def read_checkpoint(path: str, config: Config | None = None) -> tuple[Config, dict]:
    """Config and content of a checkpoint.

    Args:
        path (str): A .pth file, a URL, or a folder of `save_pretrained`.
        config (Config, optional): Taken instead of the one it carries. Defaults to None.

    Returns:
        tuple[Config, dict]: The config, in which language model and tokenizer are the checkpoint's
        own where it is the checkpoint's; and its ``meta`` and ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the file is no checkpoint, or carries no config and none is given.
    """
    if is_folder(path):
        own, loaded = read_folder(path)
        return config or own, loaded
    path = require_checkpoint(path)
    loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    require_checkpoint_content(loaded, path)
    if config is None:
        config = checkpoint_config(loaded, path)
        _use_own_language_model(config, loaded.get('meta', {}))
    return config, loaded


def _use_own_language_model(config: Config, meta: dict) -> None:
    """The weights follow from the checkpoint: neither hub nor folder is asked for others."""
    language_model = meta.get(ArchitectureHook.LANGUAGE_MODEL)
    text = config.get('model', {}).get('text_encoder')
    if text is not None and language_model is not None:
        text.pop('name_or_path', None)
        text.config = language_model


def load_model(config: Config, checkpoint: str, device: str) -> nn.Module:
    """Build a config's model and load all its weights, under the checks that a test runs.

    The tokenizer that the checkpoint carries serves where the configured one cannot be built. The
    config's ``env_cfg.allow_tf32`` is applied to this process, as by a test.

    Args:
        config (Config): With ``model``.
        checkpoint (str | bytes | PathLike): Path or URL.
        device (str): Where the model goes.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no vocabulary in either.
        ValueError: If the checkpoint belongs to another architecture or another vocabulary, the
            file is no checkpoint, the config has no model, or the device cannot be used.
    """
    require_model(config)
    require_device(device)
    checkpoint = os.fsdecode(checkpoint)
    return build_model(config, read_checkpoint(checkpoint, config)[1], checkpoint, device)


def require_model(config: Config) -> None:
    """Refuse a config that describes no model.

    Raises:
        ValueError: Naming it.
    """
    if 'model' not in config:
        raise ValueError(f'{config.filename or "the config"} lacks the setting `model`')


def build_model(
    config: Config, loaded: dict, path: str, device: str, own_tokenizer: bool = False
) -> nn.Module:
    """As `load_model`, from what `read_checkpoint` gives.

    Args:
        config (Config): With ``model``.
        loaded (dict): ``meta`` and ``state_dict``, or weights alone.
        path (str): Where it came from, for messages.
        device (str): Where the model goes.
        own_tokenizer (bool): Take the checkpoint's tokenizer whatever the config says, as where
            the config too is the checkpoint's. Defaults to False.
    """
    require_model(config)
    apply_tf32(config)
    model = MODELS.build(config.model)
    # Its use is in epochs; here it would be shared by threads.
    if getattr(model.text_encoder, 'cache', None) is not None:
        model.text_encoder.cache = None
    state = loaded.get('meta', {}).get(TokenizerHook.KEY)
    if own_tokenizer and state is not None:
        model.data_preprocessor.tokenizer = TOKENIZER.get('SentenceTokenizer').from_state(state)
    runner = SimpleNamespace(model=model, _load_from=path, _resume=False)
    for hook in (TokenizerHook(), CheckpointCheckHook(strict=True), ArchitectureHook()):
        hook.after_load_checkpoint(runner, loaded)
    weights = loaded.get('state_dict', loaded)
    weights = {re.sub('^module[.]', '', key): value for key, value in weights.items()}
    load_state_dict(model, weights, strict=True, logger='silent')
    # what its features have to come from; see matching_extractor
    model.extractor_fingerprints = loaded.get('meta', {}).get(ExtractorHook.KEY)
    model.loaded_from = str(path)
    _ = model.data_preprocessor.tokenizer  # a missing vocabulary shows now, not at a sentence
    return model.to(device).eval()
