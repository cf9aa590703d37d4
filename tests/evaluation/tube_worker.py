"""One process of a distributed evaluation of tubes, rank and world size as torchrun's."""

import json
import os
from pathlib import Path

import numpy as np
from helpers.made_up_tubes import random_video
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from torch.distributed import destroy_process_group, init_process_group
from torch.utils.data import DataLoader

from mmn_plugin.evaluation import DumpTubeSubmission, TubeGroundingMetric

VIDEOS = 7


def sample_of(video, answers):
    """A video without its truth, and what was predicted for its sentences."""
    return dict(
        video_id=video.video_id,
        sentences=video.sentences,
        tubes=video.tubes,
        sentence_index=list(range(len(video.sentences))),
        pred_instances=dict(tubes=answers),
    )


def samples():
    """Videos with an answer that is a disturbed truth."""
    rng = np.random.default_rng(3)
    result = []
    for i in range(VIDEOS):
        video = random_video(rng, f'v{i}', 3, 1 + i % 2)
        shift = np.append(0, np.tile(rng.uniform(-3 * i, 3 * i, 2), 2))
        answers = [tube[i:] + shift for tube in video.ground_truth]
        sample = sample_of(video, [tube.astype(np.float32) for tube in answers])
        result.append(dict(sample, gt_instances=dict(tubes=video.ground_truth)))
    return result


def main(world_size, rank):
    world_size, rank = int(world_size), int(rank)
    if world_size > 1:
        store = f'file://{Path("store").resolve()}'
        init_process_group('gloo', init_method=store, rank=rank, world_size=world_size)
    evaluator = Evaluator(
        [
            TubeGroundingMetric(bounds=dict(num_clips=16, pooling_counts=[15])),
            DumpTubeSubmission('answers.json'),
        ]
    )
    sampler = list(DefaultSampler(range(VIDEOS), shuffle=False))
    for batch in DataLoader(samples(), sampler=sampler, batch_size=2, collate_fn=list):
        evaluator.process(batch)
    Path(f'figures_{rank}.json').write_text(json.dumps(evaluator.evaluate(VIDEOS)))
    if world_size > 1:
        destroy_process_group()


if __name__ == '__main__':
    main(os.environ['WORLD_SIZE'], os.environ['RANK'])
