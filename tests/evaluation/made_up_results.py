"""Predictions of moments and tubes, made up by seed."""

import zlib

import numpy as np
import torch
from helpers.made_up_tubes import random_video
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


def tube_sample_of(video, answers):
    """A video without its truth, and what was predicted for its sentences."""
    return dict(
        video_id=video.video_id,
        sentences=video.sentences,
        tubes=video.tubes,
        sentence_index=list(range(len(video.sentences))),
        pred_instances=dict(tubes=answers),
    )


def tube_samples():
    """Seven videos with an answer that is a disturbed truth."""
    rng = np.random.default_rng(3)
    result = []
    for i in range(7):
        video = random_video(rng, f'v{i}', 3, 1 + i % 2)
        shift = np.append(0, np.tile(rng.uniform(-3 * i, 3 * i, 2), 2))
        answers = [tube[i:] + shift for tube in video.ground_truth]
        sample = tube_sample_of(video, [tube.astype(np.float32) for tube in answers])
        result.append(dict(sample, gt_instances=dict(tubes=video.ground_truth)))
    return result
