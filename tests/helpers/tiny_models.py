"""Models of published configs at a few channels, and videos for them, without a corpus."""

import copy

import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmn_plugin.structures import GroundingDataSample

from .tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY, tiny_model
from .tiny_weak import tiny_weak_model


def build_tiny(name='mmn_charades.py', **parts):
    """The model of a config, without dropout; ``parts`` go into its ``head``, ``neck``, ..."""
    config = Config.fromfile(f'mmn_plugin::{name}')
    small = tiny_weak_model if name.startswith('mscl') else tiny_model
    config.merge_from_dict(dict(model=small('unused', dropout=0.0)))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    for part, settings in parts.items():
        config.model[part] = {**config.model.get(part, {}), **settings}
    torch.manual_seed(0)
    return MODELS.build(config.model)


def sample_of(video_id, sentences, duration=20.0):
    """A video with a true moment for every sentence."""
    result = GroundingDataSample(
        metainfo=dict(
            video_id=video_id,
            duration=duration,
            sentences=list(sentences),
            sentence_index=list(range(len(sentences))),
        )
    )
    starts = torch.linspace(0.1, 0.9, len(sentences)) * duration / 2
    result.gt_instances = InstanceData(moments=torch.stack([starts, starts + duration / 4], 1))
    return result


SAMPLES = [
    sample_of('v', ['a person opens the door', 'then the box']),
    sample_of('vv', ['the red box'], duration=33.0),
]


def batch_of(model, samples=SAMPLES):
    """A batch of videos, whose features follow from their names' lengths."""
    generators = [torch.Generator().manual_seed(len(sample.video_id)) for sample in samples]
    inputs = [torch.randn(NUM_SEGMENTS, FEATURE_SIZE, generator=each) for each in generators]
    return model.data_preprocessor(dict(inputs=inputs, data_samples=copy.deepcopy(samples)))


def assert_batch_plays_no_role(model):
    """A video's predictions are the same alone and in a batch."""
    model.eval()
    together = model(**batch_of(model), mode='predict')
    for found, alone in zip(together, SAMPLES, strict=True):
        single = model(**batch_of(model, [alone]), mode='predict')[0].pred_instances
        for name in ('moments', 'scores'):
            torch.testing.assert_close(found.pred_instances[name], single[name], equal_nan=True)
