"""A tower whose sentence embeddings follow from the sentences' words, without any weights."""

import json
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS

from .tiny_corpus import FEATURE_SIZE


def word_vectors(words, size=FEATURE_SIZE):
    """A random vector for each word, the same wherever the word occurs: (W, size)."""
    rows = [np.random.default_rng(zlib.crc32(w.encode())).standard_normal(size) for w in words]
    return torch.tensor(np.array(rows), dtype=torch.float32)


@MODELS.register_module()
class StubTower:
    """The interface of `SentenceTower`: a sentence is the sum of its words' vectors."""

    logit_scale, logit_bias, max_tokens = 10.0, -2.0, None

    def __init__(self, size=FEATURE_SIZE, seed=0, stride=1, root=None):
        self.size, self.seed, self.stride = size, seed, stride
        self.device, self.asked = 'cpu', []

    def encode_sentences(self, sentences, rewrite=True):
        """(S, size) unit vectors."""
        self.asked += sentences
        vectors = [word_vectors(s.lower().split(), self.size).sum(0) + self.seed for s in sentences]
        return F.normalize(torch.stack(vectors), dim=-1).to(self.device)

    def inspect(self, sentences, rewrite=True):
        """(tokens, problem) of each."""
        problems = ('holds no word' if not any(map(str.isalnum, s)) else None for s in sentences)
        return [(len(s.split()), problem) for s, problem in zip(sentences, problems, strict=True)]

    @property
    def identity(self):
        """What the embeddings depend on."""
        return json.dumps(dict(type='StubTower', seed=self.seed))

    @property
    def fingerprint(self):
        """As of a `FeatureExtractor`."""
        return dict(extractor=self.identity, stride=self.stride, fps=1.0, feature_size=self.size)

    def __deepcopy__(self, memo):
        return self
