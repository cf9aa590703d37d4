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
