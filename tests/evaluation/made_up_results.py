"""Predictions made up by seed."""

import zlib

import torch
from mmengine.structures import InstanceData

from mmn_plugin.structures import GroundingDataSample


def sample_of(annotation, top_n=5):
    """Moments around the true one, the same for a video whenever asked; some are missing."""
    generator = torch.Generator().manual_seed(zlib.crc32(annotation.video_id.encode()))
    truth = torch.tensor(annotation.moments, dtype=torch.float32)  # (s, 2)
    noise = torch.rand(len(truth), top_n, 2, generator=generator) - 0.5
    moments = truth[:, None] + noise * (truth[:, 1] - truth[:, 0])[:, None, None]  # (s, n, 2)
    scores = torch.rand(len(truth), top_n, generator=generator).sort(descending=True).values
    missing = torch.rand(len(truth), generator=generator) < 0.1
    moments[missing, 2:], scores[missing, 2:] = torch.nan, torch.nan
    sample = GroundingDataSample(
        metainfo=dict(
            video_id=annotation.video_id,
            duration=annotation.duration,
            sentences=annotation.sentences,
            sentence_index=annotation.sentence_index,
        )
    )
    sample.gt_instances = InstanceData(moments=truth)
    sample.pred_instances = InstanceData(moments=moments, scores=scores)
    return sample
