"""Figures and submission of QVHighlights, in the loop."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import METRICS  # where MMAction2's finds them; `mmn eval` does without
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.files import write_atomically
from mmn_plugin.structures.qvhighlights import CLIP, SALIENCY, WINDOWS, num_clips

from .base_metric import DumpMetric, VideoResultsMetric
from .qvhighlights import Pair, pair_notes, qvhighlights_figures


def clip_saliency(curve: np.ndarray, duration: float) -> list[float]:
    """Saliency of each clip of 2 s: the value of the score curve at the clip's middle.

    The curve has, at each time, the largest score of all moments that contain it (`score_curve`; of
    a head that scores clips the score itself), so that clips of the best moment are first.

    Args:
        curve (np.ndarray): (K,) values of K equal parts of the video.
        duration (float): Seconds of the video.

    Returns:
        list[float]: A number for each of the `num_clips` of the video.
    """
    middles = (np.arange(num_clips(duration)) + 0.5) * CLIP
    places = (middles / duration * len(curve)).astype(np.int64)
    return curve[places.clip(max=len(curve) - 1)].astype(float).tolist()


def prediction_line(line: dict, moments: Tensor, scores: Tensor, curve: Tensor | None) -> dict:
    """A line of a submission.

    Args:
        line (dict): The query's line: ``qid``, ``query``, ``vid``, ``duration``.
        moments (Tensor): (n, 2) seconds, best first, NaN where fewer.
        scores (Tensor): (n,), NaN likewise.
        curve (Tensor | None): (K,) score curve; without it the line has no saliency.
    """
    there = ~moments.isnan().any(-1)
    # a float32 as a double has the same value, so that scoring the file gives the same figures
    rows = zip(moments[there].tolist(), scores[there].tolist(), strict=True)
    found = {key: line[key] for key in ('qid', 'query', 'vid')}
    found[WINDOWS[0]] = [[*window, score] for window, score in rows]
    if curve is not None:
        found[SALIENCY[0]] = clip_saliency(curve.numpy(), line['duration'])
    return found


@dataclass
class QVHighlightsResult:
    """Predictions and lines of all queries about one video.

    Attributes:
        video_id (str): The video.
        sentence_index (list[int]): Places among the queries about it.
        sentences (list[str]): The queries.
        pairs (list[tuple[int, tuple[dict, dict]]]): Place in the file of each query's line, and
            its prediction and line.
    """

    video_id: str
    sentence_index: list[int]
    sentences: list[str]
    pairs: list[tuple[int, Pair]]

    @classmethod
    def from_data_sample(cls, sample: dict) -> 'QVHighlightsResult':
        """Take what evaluation needs from a `GroundingDataSample` as a dict.

        Raises:
            ValueError: If it has no lines, or no predictions.
        """
        name, found = sample.get('video_id'), sample.get('pred_instances')
        if 'lines' not in sample:
            raise InputError(
                f'video {name!r} reached the metric without the lines of its queries: it needs '
                "QVHighlightsDataset, and meta_keys=['lines'] of PackGroundingInputs"
            )
        if found is None:
            raise InputError(
                f'video {name!r} reached the metric without pred_instances; run the model in '
                'mode="predict"'
            )
        lines = sample['lines']
        curves = found.get('curves', [None] * len(lines))
        rows = zip(lines, found['moments'], found['scores'], curves, strict=True)
        return cls(
            name,
            [int(index) for index in sample['sentence_index']],
            list(sample['sentences']),
            [(place, (prediction_line(line, *row), line)) for (place, line), *row in rows],
        )


def pairs_in_order(results: Sequence[QVHighlightsResult]) -> list[Pair]:
    """Predictions and lines of all queries, in the order of the file."""
    found = itertools.chain.from_iterable(result.pairs for result in results)
    return [pair for _, pair in sorted(found, key=lambda one: one[0])]


@METRICS.register_module()
class QVHighlightsMetric(VideoResultsMetric):
    """Moment retrieval and highlights as of QVHighlights' published evaluator.

    Reported in percent, under ``qvhighlights/``: the figures that papers print, ``MR-full-R1@0.5``,
    ``MR-full-mAP``, ``MR-short-mAP``, ``HL-min-VeryGood-mAP``, ..., see `qvhighlights_figures`, and
    ``num_queries``. They are those of `mmn eval --format qvhighlights` for the submission of
    the same test, to every digit. Highlights need a head with ``curves=True``.

    Without truth there are no figures.

    Args:
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`; ``prefix`` defaults to
            ``qvhighlights``.
    """

    default_prefix = 'qvhighlights'
    result_type = QVHighlightsResult

    def compute_metrics(self, results: list[QVHighlightsResult]) -> dict:
        """Figures of all queries; the log gets notes on odd ones."""
        pairs = pairs_in_order(self.unique_results(results))
        if not {WINDOWS[1], SALIENCY[1]} & {*pairs[0][1]}:
            print_log('the queries have no truth: there are no figures', logger='current')
            return {}
        for note in pair_notes(pairs):
            print_log(f'note: {note}', logger='current')
        return qvhighlights_figures(pairs)['brief'] | {'num_queries': float(len(pairs))}


@METRICS.register_module()
class DumpQVHighlights(DumpMetric):
    """Writes a submission of QVHighlights, one JSON object a line, in the order of the file.

    ``qid``, ``query``, ``vid``, ``pred_relevant_windows`` [[start, end, score], ...] in seconds,
    best first, and of a head with ``curves=True`` ``pred_saliency_scores``, see `clip_saliency`.

    Args:
        out_file_path (str): Path of the file; must end in ``.jsonl``. Its folder is made.
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`.
    """

    suffix = '.jsonl'
    result_type = QVHighlightsResult

    def compute_metrics(self, results: list[QVHighlightsResult]) -> dict:
        """Write the file; there are no figures."""
        pairs = pairs_in_order(self.unique_results(results))
        text = ''.join(json.dumps(prediction) + '\n' for prediction, _ in pairs)
        write_atomically(self.out_file_path, text)
        print_log(f'{len(pairs)} answers written to {self.out_file_path}', logger='current')
        return {}
