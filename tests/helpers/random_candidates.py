"""Made-up embeddings of videos and sentences."""

import numpy as np
import torch
import torch.nn.functional as F

from mmn_plugin.models import Candidates


def random_candidates(counts, video_ids, texts=None, moments=7, channels=5):
    """Normalized embeddings, targets and meanings of videos with so many sentences, in float64."""
    sentences = sum(counts)
    starts = torch.rand(sentences, dtype=torch.float64)
    return Candidates(
        moments=F.normalize(
            torch.randn(len(counts), moments, channels, dtype=torch.float64), dim=-1
        ),
        sentences=F.normalize(torch.randn(sentences, channels, dtype=torch.float64), dim=-1),
        ground_truth=torch.stack([starts, starts + torch.rand_like(starts) + 0.1], dim=1),
        sentence_video=np.repeat(np.arange(len(counts)), counts),
        video_ids=list(video_ids),
        texts=texts or [f'text {i}' for i in range(sentences)],
        iou=torch.rand(sentences, moments, dtype=torch.float64),
        meaning=F.normalize(torch.randn(sentences, 2), dim=-1).numpy(),
    )


def joined_candidates(*parts):
    """All candidates of several, such as batches of two ranks."""

    def cat(name):
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    first = np.cumsum([0, *(len(part.video_ids) for part in parts)])
    places = zip(parts, first, strict=False)
    return Candidates(
        *map(cat, ('moments', 'sentences', 'ground_truth')),
        sentence_video=np.concatenate([part.sentence_video + start for part, start in places]),
        video_ids=[name for part in parts for name in part.video_ids],
        texts=[text for part in parts for text in part.texts],
        iou=cat('iou'),
        meaning=np.concatenate([part.meaning for part in parts]),
    )
