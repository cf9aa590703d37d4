"""A batch in few tensors."""

import copy
import pickle

import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmn_plugin.datasets import TemporalGroundingDataset, stack_videos
from mmn_plugin.structures import GroundingDataSample


def make_sample():
    sample = GroundingDataSample(metainfo=dict(video_id='v', sentences=['a', 'b']))
    sample.gt_instances = InstanceData(moments=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    return sample


def test_inputs_become_one_tensor_and_the_rest_is_as_before():
    batch = [dict(inputs=torch.rand(4, 5), data_samples=make_sample()) for _ in range(3)]
    stacked, plain = stack_videos(batch), pseudo_collate(batch)
    assert torch.equal(stacked['inputs'], torch.stack(plain['inputs']))
    assert stacked['data_samples'] == plain['data_samples']


def test_inputs_of_different_shapes_stay_apart():
    batch = [dict(inputs=torch.rand(rows, 5), data_samples=make_sample()) for rows in (3, 4)]
    assert [len(features) for features in stack_videos(batch)['inputs']] == [3, 4]


def test_a_config_names_it(corpus, pipeline):
    dataset = TemporalGroundingDataset(
        ann_file='train.json',
        data_root=str(corpus),
        pipeline=pipeline,
        data_prefix=dict(features='features.hdf5'),
    )
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=2,
            num_workers=1,
            collate_fn=dict(type='stack_videos'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
    )
    (batch,) = loader
    assert batch['inputs'].shape == (2, 4, 5)
    for i, sample in enumerate(batch['data_samples']):
        assert torch.equal(
            sample.gt_instances.moments, dataset[i]['data_samples'].gt_instances.moments
        )


def test_a_sample_comes_back_from_another_process_or_a_copy_whole():
    sample = make_sample()
    for again in (pickle.loads(pickle.dumps(sample)), copy.deepcopy(sample)):
        assert torch.equal(again.gt_instances.moments, sample.gt_instances.moments)
        assert again.gt_instances.moments.dtype == torch.float32
        assert again.sentences == sample.sentences
        again.gt_instances.moments[0, 0] = 9.0
        assert sample.gt_instances.moments[0, 0] == 1
    sample.gt_instances.labels = torch.ones(2)
    sample.pred_instances = InstanceData(scores=torch.ones(2, 5))
    again = pickle.loads(pickle.dumps(sample))
    assert torch.equal(again.gt_instances.labels, torch.ones(2))
    assert torch.equal(again.pred_instances.scores, torch.ones(2, 5))
    assert 'gt_instances' in again
