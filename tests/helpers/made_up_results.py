"""Predictions of moments and tubes, made up by seed, and what their precision is."""

import zlib

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmn_plugin.structures import GroundingDataSample, true_windows
from mmn_plugin.structures.annotations import VideoAnnotation

from .made_up_tubes import random_video


def sample_of(annotation, top_n=5):
    """Moments around the first true one, the same for a video whenever asked; some are missing."""
    generator = torch.Generator().manual_seed(zlib.crc32(annotation.video_id.encode()))
    anywhere = 0, annotation.duration / 2  # of a sentence that does not occur
    first = [own[0] if own else anywhere for own in annotation.windows]
    truth = torch.tensor(first, dtype=torch.float32)  # (s, 2)
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
    sample.gt_instances = true_windows(annotation.windows)
    sample.pred_instances = InstanceData(moments=moments, scores=scores)
    return sample


def samples_of_windows(videos=40, seed=0, presence=True):
    """Videos with sentences of none to three windows, as samples; some sentences are rejected."""
    rng, samples = np.random.default_rng(seed), []
    for place in range(videos):
        duration = float(rng.uniform(20, 80))
        number = int(rng.integers(1, 6))
        windows = [
            [tuple(sorted(rng.uniform(0, duration, 2))) for _ in range(count)]
            for count in rng.choice(4, number, p=[0.25, 0.45, 0.2, 0.1])
        ]
        texts = [f'sentence {index}' for index in range(number)]
        annotation = VideoAnnotation(f'v{place:02d}', duration, windows, texts, list(range(number)))
        sample = sample_of(annotation, top_n=12)
        rejected = torch.from_numpy(rng.random(number) < 0.2)
        sample.pred_instances.moments[rejected] = torch.nan
        sample.pred_instances.scores[rejected] = torch.nan
        if presence:
            sample.pred_instances.presence = (
                torch.from_numpy(rng.random(number)).float().round(decimals=1)
            )
        samples.append((annotation, sample))
    return samples


def annotations_of(samples):
    """An annotation file's content, for `samples_of_windows`."""
    return {
        video.video_id: dict(
            duration=video.duration,
            sentences=video.sentences,
            timestamps=[[*map(list, own)] for own in video.windows],
        )
        for video, _ in samples
    }


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


def precision_by_definition(ranked, windows, threshold):
    """Interpolated precision summed over the steps of recall, from lists of (start, end)."""
    free, hits = list(windows), []
    for start, end in ranked[:10]:
        overlaps = [
            max(0.0, min(end, b) - max(start, a)) / (max(end, b) - min(start, a)) for a, b in free
        ]
        best = max(overlaps, default=0.0)
        hits.append(best >= threshold)
        if hits[-1]:
            free.pop(len(overlaps) - 1 - overlaps[::-1].index(best))
    curve = [(sum(hits[:n]) / len(windows), sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]
    total, before = 0.0, 0.0
    for place, (recall, _) in enumerate(curve):
        total += (recall - before) * max(precision for _, precision in curve[place:])
        before = recall
    return total
