"""From scores of moments to the samples' predictions."""
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.ranking import nms, take_moments
from mmn_plugin.structures import GroundingDataSample


def rank_moments(spans: Tensor, scores: Tensor, sentence_video: Tensor,
                 data_samples: list[GroundingDataSample], nms_threshold: float,
                 top_n: int) -> list[GroundingDataSample]:
    """Give the samples the best moments of their sentences after NMS.

    Args:
        spans (Tensor): (B, P, 2) start and end in seconds.
        scores (Tensor): (S, P).
        sentence_video (Tensor): (S,), place of each sentence's video among the samples.
        data_samples (list[GroundingDataSample]): B videos.
        nms_threshold (float): IoU above which a moment gives way to a better one.
        top_n (int): Moments kept for a sentence (n).

    Returns:
        list[GroundingDataSample]: The samples, with ``pred_instances``: ``moments`` (s, n, 2)
        in seconds and ``scores`` (s, n), NaN-padded.
    """
    picks = nms(spans, scores, nms_threshold, top_n, sentence_video)  # (S, n)
    ranked, scores = take_moments(spans, scores, picks, sentence_video)
    counts = [len(sample.sentences) for sample in data_samples]
    for sample, moments, score in zip(
            data_samples, ranked.split(counts), scores.split(counts), strict=True):
        sample.pred_instances = InstanceData(moments=moments, scores=score)
    return data_samples
