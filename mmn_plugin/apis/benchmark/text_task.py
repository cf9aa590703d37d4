"""The sentence encoder alone."""

from collections.abc import Callable

import torch
from mmaction.registry import MODELS

from mmn_plugin.structures import SentenceBatch

from .benchmark_settings import BenchmarkSettings
from .subject import Subject
from .variant import Variant


class TextTask:
    """Embedding the sentences of a batch: forward, and forward with backward.

    Each in one batch padded to the longest sentence, and by length, which is how the encoder
    does it (see `SentenceEncoder`).

    Args:
        settings (BenchmarkSettings): What to run; of the variants their precisions.
    """

    def __init__(self, settings: BenchmarkSettings):
        self.settings = settings
        self.device = settings.device
        self.dtypes = list(dict.fromkeys(variant.dtype for variant in settings.variants))
        for dtype in self.dtypes:
            Variant(dtype=dtype).check(self.device)
        torch.manual_seed(settings.seed)
        self.encoder = MODELS.build(settings.cfg.model.text_encoder).to(self.device)
        preprocessor = MODELS.build(settings.cfg.model.data_preprocessor).to(self.device)
        batch = settings.workload('train').batch(settings.batch_size)
        self.by_length = preprocessor(batch)['sentences']
        self.padded = self.by_length._replace(token_ids=None)

    def subjects(self) -> list[Subject]:
        """Both orders of work in each precision, without and with backward."""
        layouts = {'padded': self.padded, 'by length': self.by_length}
        return [
            Subject(
                f'{layout} {dtype}',
                self.step_of(sentences, dtype, training),
                'forward and backward' if training else 'forward, no graph',
                self.settings.batch_size,
                len(sentences.video),
                dict(
                    dtype=dtype,
                    tokens=int(sentences.attention_mask.sum()),
                    padded_tokens=sentences.input_ids.numel(),
                ),
            )
            for training in (False, True)
            for dtype in self.dtypes
            for layout, sentences in layouts.items()
        ]

    def step_of(self, sentences: SentenceBatch, dtype: str, training: bool) -> Callable[[], None]:
        """Embed once; dropout is on, as in training."""
        variant, encoder = Variant(dtype=dtype), self.encoder.train()
        parameters = list(encoder.parameters())

        def step() -> None:
            with variant.backends(), torch.set_grad_enabled(training):
                with variant.autocast(self.device):
                    embeddings = encoder(sentences)
                if training:
                    total = sum(value.float().sum() for value in embeddings.values())
                    torch.autograd.grad(total, parameters, allow_unused=True)

        return step

    def probes(self) -> list[Subject]:
        """None: the convolutions have no part in it."""
        return []
