"""Windows of a sample's sentences."""

import torch
from mmengine.structures import InstanceData

from mmn_plugin.structures import GroundingDataSample


def test_windows_find_their_sentences_in_whatever_order_they_are_given():
    sample = GroundingDataSample(metainfo=dict(sentences=['one', 'two', 'three']))
    moments = torch.arange(8.0).reshape(4, 2)
    sentence = torch.tensor([2, 0, 2, 0])
    sample.gt_instances = InstanceData(moments=moments, sentence=sentence)
    expected = [moments[[1, 3]], moments[:0], moments[[0, 2]]]
    assert len(sample.windows) == 3
    for own, wanted in zip(sample.windows, expected, strict=True):
        assert torch.equal(own, wanted)
