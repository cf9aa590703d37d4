"""A library of a million moments searched on the GPU and on the CPU, by bounds and in full."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from mmn_plugin.library import ExactSearch, Segment, brute_force, write_segment
from mmn_plugin.models import moment_scores

from .gpu_parts import Plan, milliseconds
from .library_speed import MATCHING as SCORE
from .library_speed import TOP_N, at

WIDTH, CHECKED = 256, 4
# The norm of coordinate k falls with this power of k: about as in trained embeddings, where half of
# the squared norm lies in a few directions.
STEEPNESS = -0.75


def search(plan: Plan) -> dict:
    """Milliseconds of one sentence by each variant, and the share of the first 20 that are right.

    Right is what comparing everything in float64 gives, for some sentences.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'random.moments')
        vectors = {space: steep(plan.searched, seed) for seed, space in enumerate(SCORE.spaces)}
        spans, lengths = torch.zeros(plan.searched, 2), torch.ones(plan.searched)
        write_segment(path, vectors, spans, lengths)
        segment = Segment(path)
        queries = {space: steep(CHECKED, 10 + seed) for seed, space in enumerate(SCORE.spaces)}
        wanted = brute_force([segment], queries, SCORE, TOP_N).row
        rows = []
        for device in dict.fromkeys((plan.device, 'cpu')):
            exact = ExactSearch([segment], SCORE, device)
            variants = {
                'exact search': lambda query, exact=exact: exact(query, TOP_N).row[0],
                'full scan': full_scan(segment, device),
            }
            for name, find in variants.items():
                found = [find(at(queries, place)) for place in range(CHECKED)]
                shared = [np.intersect1d(*pair).size for pair in zip(found, wanted, strict=True)]
                took = milliseconds(lambda find=find: find(at(queries, 0)), plan)
                right = sum(shared) / wanted.size
                rows.append(dict(device=device, variant=name, ms=took, right=right))
    return dict(moments=plan.searched, widths=[WIDTH] * len(SCORE.spaces), rows=rows)


def steep(count: int, seed: int) -> torch.Tensor:
    """(count, 256) random unit vectors most of whose squared norm lies in a few directions."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.arange(1, WIDTH + 1) ** STEEPNESS
    return normalize(torch.randn(count, WIDTH, generator=draw) * sizes, dim=1)


def full_scan(segment: Segment, device: str) -> Callable:
    """The products with all vectors, the score and ``topk``; in float16 where it is a GPU."""
    kind = torch.float32 if device == 'cpu' else torch.float16

    def tensor(arrays: Iterable) -> torch.Tensor:
        return torch.stack([torch.as_tensor(array) for array in arrays]).to(device, kind)

    library = tensor(segment.vectors(space, slice(None)) for space in SCORE.spaces)
    rotation = tensor(segment.rotation[space].T for space in SCORE.spaces)

    def find(query: dict) -> np.ndarray:
        with torch.inference_mode():
            turned = tensor(query[space] for space in SCORE.spaces) @ rotation  # (2, 1, J)
            contrastive, iou = torch.bmm(library, turned.mT)[..., 0]  # (moments,) each
            scores = moment_scores(contrastive, (SCORE.iou_scale * iou).sigmoid(), SCORE.power)
            return scores.topk(TOP_N).indices.cpu().numpy()

    return find
