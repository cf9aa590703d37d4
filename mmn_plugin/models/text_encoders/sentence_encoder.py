"""Sentence encoder."""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain, groupby, pairwise

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mmn_plugin.errors import InputError
from mmn_plugin.hub import from_hub
from mmn_plugin.models.initialization import begin_as_identity
from mmn_plugin.structures import SentenceBatch
from mmn_plugin.structures.data_samples import token_limit


def length_buckets(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    """Batches of sentences that together cost least, where each is padded to its longest.

    A batch of n sentences costs ``n * longest + overhead``. Only the lengths that occur can end a
    batch, so the cheapest split is found exactly, shortest sentences first.

    Args:
        lengths (Sequence[int]): Tokens of each of S sentences.
        overhead (int): Cost of one more batch, in tokens.

    Returns:
        list[list[int]]: Places of the sentences, each in one batch; rising lengths over batches,
        rising places of equal lengths.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    runs = [list(run) for _, run in groupby(order, lengths.__getitem__)]  # of equal lengths
    best = [(0, [])]  # of the first 0, 1, ... runs: cost, and where its batches begin
    for end, run in enumerate(runs, 1):
        options = []
        for begin, (cost, begins) in enumerate(best):
            size = sum(map(len, runs[begin:end]))
            options.append((cost + size * lengths[run[0]] + overhead, [*begins, begin]))
        best.append(min(options))
    bounds = [*best[-1][1], len(runs)]
    return [[*chain(*runs[begin:end])] for begin, end in pairwise(bounds)]


# What one more batch through the language model costs, in tokens: overheads of some hundred calls.
BATCH_TOKENS = dict(cpu=64, other=2048)

# Sentences whose token means a frozen language model keeps: 200 MB where it has 768 channels.
KEPT = 1 << 16

# Model types every token of which attends to every other of its sentence, in transformers' own way.
PLAIN_ATTENTION = ('bert', 'distilbert', 'roberta')


@MODELS.register_module()
class SentenceEncoder(BaseModule):
    """A BERT-like language model, mean over tokens, LayerNorm, one projection per joint space.

    The mean runs over all tokens, [CLS] and [SEP] included, padding excluded (MMN, section
    "Language encoder").

    Args:
        embed_channels (int): Size of the joint spaces (J).
        name_or_path (str, optional): Hugging Face name or local folder to take configuration and
            weights from.
        config (dict, optional): Configuration of a model to train from scratch, with
            ``model_type`` (such as ``'distilbert'``); nothing is downloaded.
        spaces (Sequence[str]): Names of the joint spaces. Defaults to the two of MMN.
        frozen (bool): Never train the language model: it has no dropout and no gradient, and goes
            over each sentence once, since its result is kept on its device (of `KEPT` sentences at
            most). So an epoch costs what is trained. Defaults to False: `FreezeLanguageModelHook`
            says when it is trained.
        identity (bool): The projections begin as the identity, so that training begins with the
            language model's space, where ``embed_channels`` is its size. Defaults to False.

    Raises:
        ValueError: If not exactly one of ``name_or_path`` and ``config`` is given, or ``identity``
            is to be one between two sizes.
        OSError: If ``name_or_path`` is neither a folder nor to be had from the hub.
    """

    def __init__(
        self,
        embed_channels: int,
        name_or_path: str | None = None,
        config: dict | None = None,
        spaces: Sequence[str] = ('iou', 'contrastive'),
        frozen: bool = False,
        identity: bool = False,
    ):
        super().__init__()
        self.bert = self._build_language_model(name_or_path, config)
        self.frozen = frozen
        self._kept: dict[tuple[int, ...], Tensor] = {}  # token ids -> (C,)
        if frozen:
            self.bert.requires_grad_(False)
        hidden = self.bert.config.hidden_size
        self.layernorm = nn.LayerNorm(hidden, eps=1e-5)
        self.spaces = tuple(spaces)
        for space in self.spaces:
            projection = nn.Linear(hidden, embed_channels)
            if identity:
                begin_as_identity(projection, 'model.text_encoder.identity=True', 'identity=False')
            setattr(self, f'fc_{space}', projection)

    @staticmethod
    def _build_language_model(name_or_path, config) -> nn.Module:
        if (name_or_path is None) == (config is None):
            raise InputError(
                'model.text_encoder takes either name_or_path (a Hugging Face name '
                'or a local folder) or config (with model_type), and exactly one; '
                f'got name_or_path={name_or_path!r}, config={config!r}'
            )
        if name_or_path is None:
            model = AutoModel.from_config(AutoConfig.for_model(**config))
        else:
            model = from_hub(
                AutoModel.from_pretrained,
                name_or_path,
                remedy='or give its folder: --cfg-options model.text_encoder.name_or_path=FOLDER '
                'model.data_preprocessor.tokenizer.name_or_path=FOLDER',
            )
        if getattr(model, 'pooler', None) is not None:
            model.pooler = None  # unused here: it would be a parameter without gradient
        return model

    @property
    def language_model(self) -> dict:
        """Configuration of the language model as plain data: with it as ``config`` the same model
        is built where neither network nor folder is.
        """
        kept = self.bert.config.to_diff_dict()
        for key in ('architectures', 'dtype', 'transformers_version', '_name_or_path'):
            kept.pop(key, None)
        return dict(kept, model_type=self.bert.config.model_type)

    @property
    def max_tokens(self) -> int | None:
        """Longest token sequence the language model takes, None where it has no limit."""
        return token_limit(self.bert.config)

    def forward(self, sentences: SentenceBatch) -> dict[str, Tensor]:
        """Embed sentences.

        Args:
            sentences (SentenceBatch): S sentences of at most L tokens.

        Returns:
            dict[str, Tensor]: One entry per space, each (S, J), not normalized.

        Raises:
            ValueError: If a token id lies outside the language model's vocabulary.
        """
        self._check_vocabulary(sentences.input_ids)
        frozen = not any(parameter.requires_grad for parameter in self.bert.parameters())
        with torch.no_grad() if frozen else nullcontext():
            means = self.token_means(sentences)  # (S, C)
        with torch.autocast(means.device.type, enabled=False):
            pooled = self.layernorm(means)  # (S, C)
        return {space: getattr(self, f'fc_{space}')(pooled) for space in self.spaces}

    def train(self, mode: bool = True) -> 'SentenceEncoder':
        """As of `torch.nn.Module`; a frozen language model stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.bert.eval()
        return self

    def _apply(self, *args, **kwargs):  # another device or type of numbers
        self._kept.clear()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # other weights
        self._kept.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def token_means(self, sentences: SentenceBatch) -> Tensor:
        """Mean of the last hidden states over each sentence's tokens, (S, C)."""
        if not self.frozen or sentences.token_ids is None:
            return self._means_by_length(sentences)
        keys = [*map(tuple, sentences.token_ids)]
        rows = {key: row for row, key in enumerate(keys) if key not in self._kept}
        found = {}
        if rows:
            means = self._means_by_length(sentences.take([*rows.values()]))
            found = dict(zip(rows, means, strict=True))
        means = torch.stack([found[key] if key in found else self._kept[key] for key in keys])
        if len(self._kept) + len(found) <= KEPT:
            self._kept.update(found)
        return means

    def _means_by_length(self, sentences: SentenceBatch) -> Tensor:
        """The same for all of a batch.

        Sentences go through the language model in batches of like length where that spares more
        padding than another batch costs; batches of one length need no padding at all.
        """
        lengths = sentences.lengths
        overhead = BATCH_TOKENS['cpu' if sentences.input_ids.device.type == 'cpu' else 'other']
        buckets = [] if lengths is None else length_buckets(lengths, overhead)
        if len(buckets) < 2:
            return self._token_means(sentences)
        means = torch.cat([self._token_means(sentences.take(rows)) for rows in buckets])
        order = torch.tensor([row for rows in buckets for row in rows])
        return means[order.argsort().to(means.device, non_blocking=True)]

    def _token_means(self, sentences: SentenceBatch) -> Tensor:
        hidden = self.bert(
            input_ids=sentences.input_ids, attention_mask=self._attention_mask(sentences)
        ).last_hidden_state  # (S, L, C)
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        weight = sentences.attention_mask.to(hidden.dtype)[..., None]
        return (hidden * weight).sum(1) / weight.sum(1)

    def _attention_mask(self, sentences: SentenceBatch) -> Tensor | None:
        """The mask as transformers would make it of (S, L), without asking the device about it.

        transformers asks whether any sentence is padded at all; here their lengths tell.
        """
        mask, lengths, config = sentences.attention_mask, sentences.lengths, self.bert.config
        known = lengths is not None and config.model_type in PLAIN_ATTENTION
        if not known or config._attn_implementation != 'sdpa':
            return mask
        if min(lengths) == mask.shape[1]:
            return None
        return mask.bool()[:, None, None].expand(-1, -1, mask.shape[1], -1)  # (S, 1, L, L)

    def _check_vocabulary(self, input_ids: Tensor) -> None:
        if (
            input_ids.device.type != 'cpu'
        ):  # checked on the CPU only: here it would make the device wait
            return
        if input_ids.max() >= self.bert.config.vocab_size:
            raise InputError(
                f"token id {int(input_ids.max())} is outside the language model's vocabulary of "
                f'{self.bert.config.vocab_size}: model.data_preprocessor.tokenizer and '
                'model.text_encoder do not belong together'
            )
