"""A trained model from its config and checkpoint."""
import re
from types import SimpleNamespace

from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from torch import nn

from mmn_plugin.engine.hooks import ArchitectureHook, ExtractorHook, TokenizerHook
from mmn_plugin.engine.runner import (
    CheckpointCheckHook,
    require_checkpoint,
    require_checkpoint_content,
    require_device,
)


def load_model(config: Config, checkpoint: str, device: str) -> nn.Module:
    """Build a config's model and load all its weights, under the checks that a test runs.

    The tokenizer that the checkpoint carries serves where the configured one cannot be built.

    Args:
        config (Config): With ``model``.
        checkpoint (str): Path or URL.
        device (str): Where the model goes.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no vocabulary in either.
        ValueError: If the checkpoint belongs to another architecture or another vocabulary, the
            file is no checkpoint, the config has no model, or the device cannot be used.
    """
    if 'model' not in config:
        raise ValueError(f'{config.filename or "the config"} lacks the setting `model`')
    require_device(device)
    path = require_checkpoint(str(checkpoint))
    loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    require_checkpoint_content(loaded, path)
    model = MODELS.build(config.model)
    runner = SimpleNamespace(model=model, _load_from=path, _resume=False)
    for hook in (TokenizerHook(), CheckpointCheckHook(strict=True), ArchitectureHook()):
        hook.after_load_checkpoint(runner, loaded)
    weights = loaded.get('state_dict', loaded)
    weights = {re.sub('^module[.]', '', key): value for key, value in weights.items()}
    load_state_dict(model, weights, strict=True, logger='silent')
    # what its features have to come from; see matching_extractor
    model.extractor_fingerprints = loaded.get('meta', {}).get(ExtractorHook.KEY)
    model.loaded_from = str(checkpoint)
    _ = model.data_preprocessor.tokenizer  # a missing vocabulary shows now, not at a sentence
    return model.to(device).eval()
