"""Videos of a split compared with their sentences once, and ranked by any settings of the head."""

from collections.abc import Iterable

import torch
from mmaction.registry import MODELS
from mmengine.config import Config, ConfigDict

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


def with_all_spaces(config: Config, model, scores: Iterable[dict]) -> None:
    """Let a zero-shot model compare in the spaces of all these scores; `set_score` follows."""
    spaces = tuple(dict.fromkeys(space for s in scores for space in build_score(**s).spaces))
    model.neck = MODELS.build(config.model.neck, default_args=dict(grid=model.grid, spaces=spaces))
    model.head.combine = ConfigDict(spaces=spaces)


def set_score(head, setting: dict):
    """The head with one score and its length correction."""
    head.combine = build_score(**setting['score'])
    head.length_weight = setting['length_weight']
    return head
