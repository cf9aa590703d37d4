"""What a frozen language model says of sentences it has seen."""

import torch
from torch import Tensor

from mmn_plugin.structures import SentenceBatch


class FrozenSentenceCache:
    """Mean over the tokens, (C,) per sentence, of a language model whose weights do not change.

    Sentences are computed without dropout, in training too, so that what is kept depends on weights
    and precision alone: not on the order of batches, and a resumed run finds the same. It is
    emptied when the language model is unfrozen, moved, or gets other weights; it is no part of a
    checkpoint. When it is full, further sentences are computed every time.

    Args:
        size (int): Most sentences; 4 C bytes each, on the model's device, plus the token ids on
            the host.
    """

    def __init__(self, size: int):
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._rows: dict[tuple, int] = {}
        self._means: Tensor | None = None  # (rows, C), rows doubled when needed
        self._weights: tuple = ()

    def __len__(self) -> int:
        """Number of sentences in it."""
        return len(self._rows)

    @torch.no_grad()
    def means(self, encoder, sentences: SentenceBatch) -> Tensor:
        """Means of a batch, (S, C), of which only unseen sentences are computed.

        Args:
            encoder (SentenceEncoder): With ``bert``, frozen, and ``token_means``.
            sentences (SentenceBatch): S sentences.
        """
        self._check_weights(encoder.bert)
        keys = self._keys(sentences)
        unseen = {}
        for row, key in enumerate(keys):
            if key not in self._rows:
                unseen.setdefault(key, row)
        computed = self._compute(encoder, sentences, list(unseen.values()))  # (u, C) or None
        place = {key: i for i, key in enumerate(unseen)}
        if computed is None:
            return self._means[self._index([self._rows[key] for key in keys])]
        known = [row for row, key in enumerate(keys) if key not in place]
        fresh = [row for row, key in enumerate(keys) if key in place]
        means = computed.new_empty(len(keys), computed.shape[1])
        means[self._index(fresh, means)] = computed[
            self._index([place[keys[row]] for row in fresh], means)
        ]
        if known:
            means[self._index(known, means)] = self._means[
                self._index([self._rows[keys[row]] for row in known])
            ]
        self._store(list(unseen), computed)
        return means

    def _keys(self, sentences: SentenceBatch) -> list[tuple]:
        ids = sentences.token_ids
        if ids is None:
            rows = zip(sentences.input_ids.tolist(), sentences.attention_mask.tolist(), strict=True)
            ids = [row[: sum(mask)] for row, mask in rows]
        kind = sentences.input_ids.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return [(precision, *row) for row in ids]

    @staticmethod
    def _compute(encoder, sentences: SentenceBatch, rows: list[int]) -> Tensor | None:
        if not rows:
            return None
        training = encoder.bert.training
        encoder.bert.eval()
        try:
            return encoder.token_means(sentences.take(rows))
        finally:
            encoder.bert.train(training)

    @torch.inference_mode(False)  # a tensor made in inference mode cannot be written to outside
    @torch.no_grad()
    def _store(self, keys: list[tuple], means: Tensor) -> None:
        count = min(len(keys), self.size - len(self._rows))
        if count <= 0:
            return
        begin, end = len(self._rows), len(self._rows) + count
        if self._means is None or end > len(self._means):
            larger = torch.empty(
                min(self.size, max(1024, 2 * end)),
                means.shape[1],
                dtype=means.dtype,
                device=means.device,
            )
            if self._means is not None:
                larger[:begin] = self._means[:begin]
            self._means = larger
        self._means[begin:end] = means[:count]
        self._rows.update(zip(keys[:count], range(begin, end), strict=True))

    def _check_weights(self, bert) -> None:
        """Forget what other weights said: they change in place, or are replaced."""
        weights = tuple(
            (parameter.data_ptr(), parameter._version, parameter.dtype)
            for parameter in bert.parameters()
        )
        if weights != self._weights:
            self.clear()
            self._weights = weights

    def _index(self, rows: list[int], like: Tensor | None = None) -> Tensor:
        device = (self._means if like is None else like).device
        return torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)
