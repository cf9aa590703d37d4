"""One process of a distributed evaluation: ANNOTATIONS ORDER, rank and world size as torchrun's."""

import json
import os
import sys
from pathlib import Path

from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from torch.distributed import destroy_process_group, init_process_group
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from made_up_results import sample_of

from mmn_plugin.evaluation import DumpPredictions, GroundingMetric
from mmn_plugin.structures.annotations import read_annotations


def order_of(name, num_items, rank, world_size):
    """Items of this rank."""
    if name == 'default':
        return list(DefaultSampler(range(num_items), shuffle=False))
    # The items repeated to fill up the last round come first: a cut at the end would lose others
    padding = -num_items % world_size
    return [*range(padding), *range(num_items)][rank::world_size]


def main(annotations, order):
    rank, world_size = (int(os.environ.get(*value)) for value in (('RANK', 0), ('WORLD_SIZE', 1)))
    if world_size > 1:
        store = f'file://{Path("store").resolve()}'
        init_process_group('gloo', init_method=store, rank=rank, world_size=world_size)
    videos = read_annotations(annotations)
    evaluator = Evaluator(
        [
            GroundingMetric(
                iou_thrs=(0.1, 0.3, 0.5),
                chance=dict(num_clips=16, pooling_counts=[15], iou_threshold=0.4),
            ),
            DumpPredictions('predictions.json'),
        ]
    )
    items = order_of(order, len(videos), rank, world_size)
    loader = DataLoader(
        [sample_of(video) for video in videos], sampler=items, batch_size=2, collate_fn=list
    )
    for batch in loader:
        evaluator.process(batch)
    figures = evaluator.evaluate(len(videos))
    Path(f'figures_{rank}.json').write_text(json.dumps(figures))
    if world_size > 1:
        destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
