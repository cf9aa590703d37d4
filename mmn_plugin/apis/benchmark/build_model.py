"""The config's model, with random weights, once per variant."""

import inspect
import logging
from pathlib import Path

import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn
from transformers import AutoConfig

from .variant import Variant

SPECIAL_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


def offline_config(cfg: Config) -> Config:
    """A copy whose language model is of real size but random, and whose vocabulary is made up.

    Nothing is downloaded: a language model that is neither a folder nor in the local cache is
    replaced by one of DistilBERT-base's shape.
    """
    cfg = cfg.copy()
    encoder = cfg.model.text_encoder
    name = encoder.pop('name_or_path', None)
    if name is not None:
        try:
            found = AutoConfig.from_pretrained(name, local_files_only=True).to_dict()
        except (OSError, ValueError):
            found = dict(model_type='distilbert')
            if Path(str(name)).name != 'distilbert-base-uncased':
                print_log(
                    f'the language model {name!r} is not at hand; one of the shape of '
                    'distilbert-base-uncased stands in',
                    'current',
                    logging.WARNING,
                )
        encoder.config = found
    size = AutoConfig.for_model(**encoder.config).vocab_size
    cfg.model.data_preprocessor.tokenizer = dict(
        type='SentenceTokenizer', vocab=[*SPECIAL_TOKENS, *made_up_words(size)]
    )
    return cfg


def made_up_words(vocab_size: int) -> list[str]:
    """Words that fill a vocabulary."""
    return [f'w{index}' for index in range(vocab_size - len(SPECIAL_TOKENS))]


def build_model(cfg: Config, variant: Variant, device: str) -> nn.Module:
    """The model of one variant, on its device.

    Raises:
        ValueError: If the neck knows no ``conv_mode`` and another than ``'dense'`` is asked for.
    """
    settings = cfg.copy().model
    neck = MODELS.get(settings.neck.type)
    if 'conv_mode' in inspect.signature(neck.__init__).parameters:
        settings.neck.conv_mode = variant.conv_mode
    elif variant.conv_mode != 'dense':
        raise ValueError(
            f'--conv-mode {variant.conv_mode}: {settings.neck.type} has no such '
            'option; its convolutions are dense'
        )
    model = MODELS.build(settings).to(device)
    if variant.channels_last:
        model.neck.encoder.to(memory_format=torch.channels_last)
    if variant.compiled:
        model.neck.encoder.compile()
    return model


def share_weights(models: dict[Variant, nn.Module]) -> None:
    """Let models of one memory format have the same parameters and buffers, to spare memory."""
    first = {}
    for variant, model in models.items():
        owner = first.setdefault(variant.channels_last, model)
        if model is not owner:
            model.load_state_dict(owner.state_dict(keep_vars=True), assign=True)
