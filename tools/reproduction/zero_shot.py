"""Zero-shot grounding: what a sentence costs beside the tower's own text side."""

import numpy as np
import torch
import torch.nn.functional as F
from made_up_data import offline_config
from mmaction.registry import MODELS

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.config import load_config

from .inference import sentence_cost, with_random_weights
from .tables import table

SIZE, SECONDS, ROWS_PER_SECOND = 768, 600, 2
SENTENCE = 'w1 w2 w3 w4 w5'


@MODELS.register_module()
class RandomTower:
    """Random unit vectors in place of a tower's sentences: all else is what is timed."""

    device, fingerprint = 'cpu', None

    def encode_sentences(self, sentences) -> torch.Tensor:
        """(S, D) unit vectors."""
        return F.normalize(torch.randn(len(sentences), SIZE), dim=-1)

    def inspect(self, sentences) -> list[tuple[int, None]]:
        """Every sentence will do."""
        return [(1, None)] * len(sentences)

    def __deepcopy__(self, memo) -> 'RandomTower':
        return self


def zero_shot_of(score: str) -> GroundingInferencer:
    """The model of the configs, with a score."""
    config = load_config('zero_shot_siglip2.py')
    config.model.tower = dict(type='RandomTower')
    config.model.head.score = dict(type=score)
    return GroundingInferencer(config, device='cpu')


def with_the_towers_space() -> GroundingInferencer:
    """MMN with random weights on the tower's features, and its space."""
    config = offline_config(load_config('mmn_charades_siglip2.py'))
    config.model.tower = dict(type='RandomTower')
    config.model.head.tower_weight = 3.0
    return with_random_weights(config)


def zero_shot_speed() -> dict:
    """Milliseconds of a sentence in a video of 10 minutes, random features, one CPU thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = np.random.default_rng(0).standard_normal((SECONDS * ROWS_PER_SECOND, SIZE))
    features = features.astype(np.float32)
    models = {f'zero-shot, {name}': zero_shot_of(name) for name in ('mean', 'contrast', 'rise')}
    models["MMN with the tower's space"] = with_the_towers_space()
    rows = []
    for name, model in models.items():
        spaces = len(model.model.head.tower_spaces)
        cost = sentence_cost(model, features, SECONDS, SENTENCE)
        rows.append(dict(score=name, tower_spaces=spaces, **cost))
    return dict(figures=rows)


def render_zero_shot_speed(result: dict) -> str:
    """Milliseconds by score."""
    header = ['10 minutes, 768 numbers per row', 'moments', 'spaces of the tower', 'encoding it']
    form = '{score}|{moments:,}|{tower_spaces}|{encode_ms:,.0f} ms|{first_ms:,.0f} ms|'
    form += '{besides_ms:.1f} ms'
    rows = [form.format(**row).split('|') for row in result['figures']]
    return table([*header, 'first sentence', 'a further one, beside the text side'], rows)
