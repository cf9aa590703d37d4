"""Sentences to embeddings in both joint spaces."""
from contextlib import nullcontext

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mmn_plugin.structures import SentenceBatch
from mmn_plugin.structures.token_limit import token_limit


@MODELS.register_module()
class SentenceEncoder(BaseModule):
    """A BERT-like language model, mean over tokens, LayerNorm, one projection per joint space.

    The mean runs over all tokens, [CLS] and [SEP] included, padding excluded (MMN, section
    "Language encoder").

    Args:
        embed_channels (int): Size of both joint spaces (J).
        name_or_path (str, optional): Hugging Face name or local folder to take configuration and
            weights from.
        config (dict, optional): Configuration of a model to train from scratch, with
            ``model_type`` (such as ``'distilbert'``); nothing is downloaded.
        init_cfg (dict, optional): Initialisation. Defaults to None.

    Raises:
        ValueError: If not exactly one of ``name_or_path`` and ``config`` is given.
        OSError: If ``name_or_path`` is neither a folder nor to be had from the hub.
    """

    def __init__(self, embed_channels: int, name_or_path: str | None = None,
                 config: dict | None = None, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.bert = self._build_language_model(name_or_path, config)
        hidden = self.bert.config.hidden_size
        self.layernorm = nn.LayerNorm(hidden, eps=1e-5)
        self.fc_iou = nn.Linear(hidden, embed_channels)
        self.fc_contrastive = nn.Linear(hidden, embed_channels)

    @staticmethod
    def _build_language_model(name_or_path, config) -> nn.Module:
        if (name_or_path is None) == (config is None):
            raise ValueError('model.text_encoder takes either name_or_path (a Hugging Face name '
                             'or a local folder) or config (with model_type), and exactly one; '
                             f'got name_or_path={name_or_path!r}, config={config!r}')
        if name_or_path is None:
            model = AutoModel.from_config(AutoConfig.for_model(**config))
        else:
            try:
                model = AutoModel.from_pretrained(name_or_path)
            except OSError as error:
                raise OSError(
                    f'no language model {name_or_path!r}: it is no local folder and the Hugging '
                    'Face hub did not give it. Download it once where there is a network and '
                    'give the folder: --cfg-options model.text_encoder.name_or_path=FOLDER '
                    'model.data_preprocessor.tokenizer.name_or_path=FOLDER') from error
        if getattr(model, 'pooler', None) is not None:
            model.pooler = None  # unused here: it would be a parameter without gradient
        return model

    @property
    def max_tokens(self) -> int | None:
        """Longest token sequence the language model takes, None where it has no limit."""
        return token_limit(self.bert.config)

    def forward(self, sentences: SentenceBatch) -> dict[str, Tensor]:
        """Embed sentences.

        Args:
            sentences (SentenceBatch): S sentences of at most L tokens.

        Returns:
            dict[str, Tensor]: ``iou`` and ``contrastive``, each (S, J), not normalised.

        Raises:
            ValueError: If a token id lies outside the language model's vocabulary.
        """
        self._check_vocabulary(sentences.input_ids)
        frozen = not any(parameter.requires_grad for parameter in self.bert.parameters())
        with torch.no_grad() if frozen else nullcontext():
            hidden = self.bert(
                input_ids=sentences.input_ids,
                attention_mask=sentences.attention_mask).last_hidden_state  # (S, L, C)
        weight = sentences.attention_mask.to(hidden.dtype)[..., None]
        pooled = self.layernorm((hidden * weight).sum(1) / weight.sum(1))  # (S, C)
        return dict(iou=self.fc_iou(pooled), contrastive=self.fc_contrastive(pooled))

    def _check_vocabulary(self, input_ids: Tensor) -> None:
        if input_ids.is_cuda:  # checked on the CPU only: here it would make the device wait
            return
        if input_ids.max() >= self.bert.config.vocab_size:
            raise ValueError(
                f'token id {int(input_ids.max())} is outside the language model\'s vocabulary of '
                f'{self.bert.config.vocab_size}: model.data_preprocessor.tokenizer and '
                'model.text_encoder do not belong together')
