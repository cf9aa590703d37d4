"""The presence below which a sentence counts as absent from a video."""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import auroc
from mmn_plugin.structures import GroundingDataSample, normalized_text


def measure_presence(
    inferencer, dataset, absent: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Presence of the annotated sentences in their videos, and of those that do not occur.

    Args:
        inferencer (GroundingInferencer): The model.
        dataset: Gives packed samples, as a test does.
        absent (Mapping[str, Sequence[str]]): Sentences that do not occur, by video id, beside
            those that are annotated so.
    """
    found = [], []
    for packed in dataset:
        sample = packed['data_samples']
        encoded = inferencer.video_encoder.encode_pooled(packed['inputs'], sample)
        occurring = list(zip(sample.sentences, map(len, sample.windows), strict=True))
        asked = (
            [sentence for sentence, count in occurring if count],
            [sentence for sentence, count in occurring if not count] + [*absent[sample.video_id]],
        )
        for values, sentences in zip(found, asked, strict=True):
            if sentences:
                values.append(inferencer.predict(encoded, sentences).pred_instances.presence)
    return tuple(np.concatenate(values) if values else np.zeros(0) for values in found)


def foreign_sentences(dataset, per_video: int = 16, seed: int = 0) -> dict[str, list[str]]:
    """Sentences of other videos, which most probably do not occur, by video id.

    At most ``per_video`` for each, drawn by the seed; one with the words of an own sentence is left
    out. Some may occur all the same, which nobody annotated: then the threshold comes out somewhat
    too high.
    """
    rng = random.Random(seed)
    samples = [packed['data_samples'] for packed in dataset]
    own = {sample.video_id: list(sample.sentences) for sample in samples}
    everything = sorted({sentence for sentences in own.values() for sentence in sentences})
    chosen = {}
    for video_id, sentences in own.items():
        known = set(map(normalized_text, sentences))
        others = rng.sample(everything, min(len(everything), per_video + len(sentences)))
        others = [other for other in others if normalized_text(other) not in known]
        chosen[video_id] = others[:per_video]
    return chosen


def threshold_at(calibrated: Mapping, length: float) -> float:
    """Threshold in a video of some length.

    Presence is a maximum, which grows with a video. Windows laid end to end are as good as
    independent, so that a share a of absent sentences passes in one of them and 1 - (1 - a)^n in
    n. The threshold rises until that share is a again; see `tail_of` for how far.

    Args:
        calibrated (Mapping): What `calibrate_presence` found. With a ``tail`` of 0 the threshold is
            the same for every length.
        length (float): Seconds of the video over seconds of a window; 1 if it was looked at whole.
    """
    threshold, tail = calibrated['threshold'], calibrated.get('tail', 0.0)
    if length <= 1 or not tail:
        return threshold
    passing = calibrated['absent_kept']
    ratio = -np.expm1(np.log1p(-passing) / length) / passing if 0 < passing < 1 else 1 / length
    return float(1 - (1 - threshold) * ratio**tail)


def result_dicts(
    sample: GroundingDataSample, threshold: float | None, drop_absent: bool = False
) -> list[dict]:
    """What ``GroundingInferencer.ground`` returns, from a sample of its ``predict``.

    Args:
        sample (GroundingDataSample): The video with its ranked moments.
        threshold (float | None): Presence from which a sentence occurs; None: not known.
        drop_absent (bool): No moments for sentences that do not. Defaults to False.

    Raises:
        ValueError: If ``drop_absent`` is asked for and no threshold is known.
    """
    if drop_absent and threshold is None:
        raise InputError(
            'drop_absent needs a presence_threshold, and the checkpoint carries none: '
            'give one, or let tools/analysis_tools/calibrate_presence.py measure it'
        )
    found, results = sample.pred_instances, []
    for i, sentence in enumerate(sample.sentences):
        there = ~found.scores[i].isnan()  # (n,)
        result = dict(
            sentence=sentence,
            moments=found.moments[i][there].tolist(),
            scores=found.scores[i][there].tolist(),
        )
        if threshold is not None:
            result['presence'] = float(found.presence[i])
            result['present'] = result['presence'] >= threshold
            if drop_absent and not result['present']:
                result.update(moments=[], scores=[])
        results.append(result)
    return results


def tail_of(absent: Sequence[float]) -> float:
    """How slowly the presence of absent sentences ends at its bound, which is 1 as a cosine's.

    The share of them above x falls as (1 - x)^(1 / tail), as the shares of large values of anything
    bounded do. Estimated from the highest fifth of them (Hill), in which the highest 5 % only count
    as such: some of these sentences occur, though nobody annotated it.

    Returns:
        float: 0 if there is nothing to tell it from.
    """
    absent = np.asarray(absent, dtype=np.float64)
    low, high = np.quantile(absent, [0.8, 0.95])
    above = absent[absent > low]
    inside = int((above < high).sum())
    if not inside:
        return 0.0
    return float(np.log((1 - low) / (1 - above.clip(max=high))).sum() / inside)


def calibrate_presence(
    inferencer, dataset, keep: float = 0.95, absent: Mapping[str, Sequence[str]] | None = None
) -> dict:
    """Threshold that keeps a share of the sentences that do occur.

    Args:
        inferencer (GroundingInferencer): The model; its ``meta['presence']`` is set.
        dataset: Of validation: neither training, where scores are too good, nor test.
        keep (float): Share of present sentences that stay. Defaults to 0.95.
        absent (Mapping[str, Sequence[str]], optional): Sentences that do not occur, by video id.
            Defaults to None: `foreign_sentences`.

    Returns:
        dict: ``threshold`` in one window, and ``tail``, from which `threshold_at` knows it in
        several; and how it was found: ``keep``, ``present`` and ``absent`` (numbers of sentences),
        ``auroc``, ``absent_kept`` (share of absent ones that pass all the same).

    Raises:
        ValueError: If ``keep`` is no share, or there are too few sentences.
    """
    if not 0 < keep < 1:
        raise InputError(f'keep={keep}: give a share between 0 and 1')
    absent = foreign_sentences(dataset) if absent is None else absent
    present, others = measure_presence(inferencer, dataset, absent)
    result = dict(auroc=auroc(present, others), keep=keep, present=len(present), absent=len(others))
    result['threshold'] = float(np.quantile(present, 1 - keep, method='lower'))
    result['absent_kept'] = float((others >= result['threshold']).mean())
    result['tail'] = tail_of(others)
    inferencer.meta['presence'] = result
    return result
