"""Videos of a split compared with their sentences once, and ranked by any settings of the head."""

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from mmn_plugin.evaluation import GroundingMetric, GroundingResult
from mmn_plugin.models.heads.zero_shot_head import build_score


@torch.no_grad()
def compared(model, dataset) -> list[tuple]:
    """Of each video its data sample, its embedding, and its cosines with its sentences."""
    found = []
    for packed in dataset:
        sample = packed['data_samples']
        video, texts = model.embed_sample(packed['inputs'], sample)
        found.append((sample, video, model.head.cosines(video, texts)))
    return found


def ranked(head, found: list[tuple]) -> list:
    """The samples of `compared`, with the moments that the head's settings give."""
    for sample, video, cosines in found:
        sample.pred_instances = head.rank(video, head.fuse(cosines, video))
    return [sample for sample, *_ in found]


def evaluated(config: Config, samples: list) -> dict[str, float]:
    """What the config's test evaluator says of ranked samples, without its prefix."""
    evaluator = Evaluator(config.test_evaluator)
    evaluator.process(samples)
    metrics = evaluator.evaluate(len(samples))
    return {key.removeprefix('grounding/'): value for key, value in metrics.items()}


def summarized(samples: list, subsets: dict | None = None) -> dict[str, float]:
    """Metrics of ranked samples: of all sentences, and of these subsets of them."""
    results = [GroundingResult.from_data_sample(sample.to_dict()) for sample in samples]
    metric = GroundingMetric(duration_buckets=(), subsets=subsets)
    return metric.flatten(metric.summarize(results))


def set_score(head, setting: dict):
    """The head with one score and its length correction."""
    head.combine = build_score(**setting['score'])
    head.length_weight = setting['length_weight']
    return head
