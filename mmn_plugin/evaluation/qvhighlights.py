"""Files of QVHighlights, and its figures: moment retrieval and highlights.

Figures of the evaluator published with QVHighlights (Moment-DETR, NeurIPS 2021), to every digit.
Where that one fails or drops a query without a word, an empty list of windows is a miss; a note
counts them.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.structures import temporal_iou
from mmn_plugin.structures.json_lines import is_number
from mmn_plugin.structures.qvhighlights import (
    ANNOTATORS,
    CLIP,
    SALIENCY,
    WINDOWS,
    Refuse,
    check_truth,
    check_windows,
    num_clips,
    read_query_lines,
)

from .predictions import PredictionsError, require
from .recall import PRECISION_THRESHOLDS, PRECISION_WINDOWS, average_precision, window_iou

RANGES = {'full': (0, np.inf), 'long': (30, 150), 'middle': (10, 30), 'short': (0, 10)}  # seconds
LEVELS = {'Fair': 2, 'Good': 3, 'VeryGood': 4}  # least score of a clip that an annotator marks

Pair = tuple[dict, dict]  # lines of a query: prediction and truth


def read_qvhighlights(
    predictions: str | Path, truth: str | Path, shared_only: bool = False
) -> tuple[list[Pair], list[str]]:
    """Read a file of predictions and one of the truth, one JSON object a line, and match them.

    Args:
        predictions (str | Path): ``qid``, perhaps ``vid``, and ``pred_relevant_windows``
            ``[[start, end, score], ...]`` in seconds, ``pred_saliency_scores`` (one number per clip
            of 2 s), or both.
        truth (str | Path): ``qid``, ``vid``, ``duration`` in seconds, and ``relevant_windows``
            ``[[start, end], ...]``, ``relevant_clip_ids`` with ``saliency_scores`` (three from 0 to
            4 for each of these clips), or both.
        shared_only (bool): Leave out queries that one file lacks. Defaults to False: an error.

    Returns:
        tuple[list[tuple[dict, dict]], list[str]]: Prediction and truth of each query, and what a
        reader of the figures should know.

    Raises:
        FileNotFoundError: If a file does not exist.
        PredictionsError: If a line cannot be used, or the files do not belong together.
    """
    predicted = read_query_lines(predictions, _check_prediction, PredictionsError)
    true = read_query_lines(truth, check_truth, PredictionsError)
    lacking = [qid for qid in true if qid not in predicted]
    others = [qid for qid in predicted if qid not in true]
    alike = set(map(str, lacking)) & set(map(str, others))
    types = '; qids are numbers in one of them and texts in the other' if alike else ''
    left_out = []
    for name, qids in ((predictions, lacking), (truth, others)):
        if qids:
            require(
                shared_only,
                f'{name} lacks {len(qids)} queries of the other file, such as qid {qids[0]!r}'
                f'{types}: both must have the same ones, or shared_only (--shared-only) leaves '
                'these out',
            )
            left_out.append(f'queries left out that {name} lacks: {len(qids)}')
    pairs = [(predicted[qid], line) for qid, line in true.items() if qid in predicted]
    require(pairs, f'{predictions} and {truth} share no query{types}')
    for prediction, line in pairs:
        require(
            prediction.get('vid', line['vid']) == line['vid'],
            f'qid {line["qid"]!r} is of the video {prediction.get("vid")!r} in {predictions}, but '
            f'of {line["vid"]!r} in {truth}',
        )
        require(
            prediction.get(SALIENCY[0]) != [] or SALIENCY[1] not in line,
            f'{predictions}: qid {line["qid"]!r} has no number in "{SALIENCY[0]}"; expected one '
            f'per clip of {CLIP} s',
        )
    return pairs, left_out + pair_notes(pairs)


def qvhighlights_figures(pairs: Sequence[Pair]) -> dict[str, dict]:
    """All figures, in percent, rounded to two digits.

    Args:
        pairs (Sequence[tuple[dict, dict]]): From `read_qvhighlights`.

    Returns:
        dict[str, dict]: ``brief``, and in full ``HL-min-Fair``, ``HL-min-Good``,
        ``HL-min-VeryGood`` (`highlight_figures`), ``full``, ``long``, ``middle``, ``short``
        (`retrieval_figures`), as the published evaluator names them. Highlights or windows are
        missing where one of the files has none.
    """
    highlights = retrieval = {}
    if _both_have(pairs, SALIENCY):
        scores = [prediction[SALIENCY[0]] for prediction, _ in pairs]
        highlights = highlight_figures(scores, [_annotated(truth) for _, truth in pairs])
    if _both_have(pairs, WINDOWS):
        retrieval = retrieval_figures(
            [prediction[WINDOWS[0]] for prediction, _ in pairs],
            [truth[WINDOWS[1]] for _, truth in pairs],
        )
    return {'brief': _brief(retrieval, highlights), **highlights, **retrieval}


def _brief(retrieval: dict, highlights: dict) -> dict[str, float]:
    """The figures that papers print, under the published evaluator's names."""
    brief = {}
    if retrieval:
        full = retrieval['full']
        brief = {f'MR-full-R1@{at}': full['MR-R1'][at] for at in ('0.5', '0.7')}
        brief['MR-full-mAP'] = full['MR-mAP']['average']
        brief |= {f'MR-full-mAP@{at}': full['MR-mAP'][at] for at in ('0.5', '0.75')}
        others = {name: rows for name, rows in retrieval.items() if name != 'full'}
        brief |= {f'MR-{name}-mAP': rows['MR-mAP']['average'] for name, rows in others.items()}
    for name, rows in highlights.items():
        brief |= {f'{name}-{key.removeprefix("HL-")}': value for key, value in rows.items()}
    return brief


def retrieval_figures(
    predicted: Sequence[Sequence], truth: Sequence[Sequence]
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of windows, by length of the true ones: R1 at each IoU, and mAP.

    R1 judges the window listed first, by the true window that it fits best. mAP takes the first 10,
    by score; see `average_precision`. A query without windows is a miss.

    Args:
        predicted (Sequence[Sequence]): Q lists of [start, end, score] in seconds.
        truth (Sequence[Sequence]): Q lists of [start, end] with start < end.

    Returns:
        dict[str, dict]: Range of length -> ``MR-mAP`` and ``MR-R1``: IoU, and ``average`` for mAP
        -> percent. A range without a true window is left out.
    """
    true, there = _padded(truth, 2)  # (Q, T, 2), (Q, T)
    first = _padded([windows[:1] for windows in predicted], 3)
    ranked = _padded(
        [
            sorted(windows[:PRECISION_WINDOWS], key=lambda window: -window[2])
            for windows in predicted
        ],
        3,
    )
    length = true[..., 1] - true[..., 0]
    figures = {}
    for name, (above, most) in RANGES.items():
        chosen = there & (length > above) & (length <= most)
        queries = chosen.any(1) | (name == 'full')
        if queries.any():
            precision = average_precision(window_iou(*ranked, true, chosen), chosen)[queries]
            average = {'average': _percent(precision.mean(0).mean())}
            figures[name] = {
                'MR-mAP': _by_threshold(precision) | average,
                'MR-R1': _by_threshold(_first_hits(first, true, chosen)[queries]),
            }
    return figures


def _first_hits(
    first: tuple[np.ndarray, np.ndarray], true: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """Whether the window listed first reaches each threshold (Q, 10), its union being the hull."""
    fit = window_iou(*first, true, there)[:, 0]  # (Q, T)
    best = np.take_along_axis(true, fit.argmax(1)[:, None, None], 1)[:, 0]  # (Q, 2)
    iou = temporal_iou(*map(torch.from_numpy, (first[0][:, 0, :2], best))).numpy()
    return (fit.max(1) > 0)[:, None] & (iou[:, None] >= PRECISION_THRESHOLDS)


def highlight_figures(
    scores: Sequence[Sequence[float]], annotated: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    """Figures of the clips' scores, by the least score of a clip that counts as a highlight.

    Args:
        scores (Sequence[Sequence[float]]): Q lists of at least one predicted number; cut, or filled
            with 0, to the number of clips.
        annotated (Sequence[np.ndarray]): Q arrays (clips, annotators) of scores from 0 to 4.

    Returns:
        dict[str, dict[str, float]]: Level -> ``HL-mAP``, the mean of `highlight_precision` over
        annotators and queries, and ``HL-Hit1``, how often an annotator marks the clip of highest
        score (the first among equals; one past the last clip is a miss), in percent.
    """
    levels = np.array(list(LEVELS.values()))
    precision, hits = [], []
    for given, truth in zip(scores, annotated, strict=True):
        marked = truth[:, None] >= levels[:, None]  # (clips, levels, annotators)
        top = int(np.argmax(given))
        hits.append(marked[top].any(-1) if top < len(truth) else np.zeros(len(levels)))
        fitted = np.zeros(len(truth))
        fitted[: len(given)] = given[: len(truth)]
        found = highlight_precision(marked.reshape(len(truth), -1), fitted)
        precision.append(found.reshape(len(levels), -1).mean(1))
    columns = zip(LEVELS, np.mean(precision, 0), np.mean(hits, 0), strict=True)
    return {
        f'HL-min-{name}': {'HL-mAP': _percent(mean), 'HL-Hit1': _percent(hit)}
        for name, mean, hit in columns
    }


def highlight_precision(marked: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mean precision over the thresholds at which recall changes.

    The curve is that of scikit-learn's ``precision_recall_curve``, made monotone from the lowest
    threshold on.

    Args:
        marked (np.ndarray): (clips, A) bool, whether a clip is a highlight, to each of A judges.
        scores (np.ndarray): (clips,) predicted numbers.

    Returns:
        np.ndarray: (A,) in [0, 1]; 0 where no clip is one, 1 where all are.
    """
    order = np.argsort(-scores, kind='stable')
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # of the clips of each score
    found = marked[order].cumsum(0)[last]  # (thresholds, A), highest first
    precision = np.maximum.accumulate((found / (last + 1)[:, None])[::-1])[::-1]
    changes = np.diff(found, axis=0, prepend=0) > 0
    return (precision * changes).sum(0) / changes.sum(0).clip(1)


def _padded(lists: Sequence[Sequence], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (Q, W, width), and which there are (Q, W); W is at least 1."""
    longest = max([1, *map(len, lists)])
    windows = np.zeros((len(lists), longest, width))
    windows[..., 1] = 1  # no window is empty, so that every union has a length
    there = np.arange(longest) < np.array([len(one) for one in lists])[:, None]
    windows[there] = np.array([window for one in lists for window in one]).reshape(-1, width)
    return windows, there


def _percent(value: float) -> float:
    return float(f'{100 * value:.2f}')


def _by_threshold(values: np.ndarray) -> dict[str, float]:
    """Means of (Q, 10) over the queries, under the thresholds' names."""
    return dict(zip(map(str, PRECISION_THRESHOLDS), map(_percent, values.mean(0)), strict=True))


def _annotated(truth: dict) -> np.ndarray:
    """Scores (clips, annotators); 0 of clips that are not listed."""
    scores = np.zeros((num_clips(truth['duration']), ANNOTATORS))
    for clip, given in zip(truth['relevant_clip_ids'], truth['saliency_scores'], strict=True):
        scores[clip] = given
    return scores


def _both_have(pairs: Sequence[Pair], keys: tuple[str, str]) -> bool:
    """Whether the predictions and the truth have a part."""
    return all(key in line for line, key in zip(pairs[0], keys, strict=True))


def pair_notes(pairs: Sequence[Pair]) -> list[str]:
    """What a reader of the figures should know about the files."""
    parts = {'windows': _both_have(pairs, WINDOWS), 'highlights': _both_have(pairs, SALIENCY)}
    require(any(parts.values()), f'neither {WINDOWS} nor {SALIENCY} are in both files')
    notes = [
        f'{name} are not scored: not both files have them' for name in parts if not parts[name]
    ]
    counts: Counter[str] = Counter()
    for prediction, truth in pairs if parts['windows'] else ():
        predicted, true = prediction[WINDOWS[0]], truth[WINDOWS[1]]
        counts['queries without a predicted window, a miss in R1 and mAP'] += not predicted
        counts['queries without a true window, a miss in R1 and mAP'] += not true
        empty = sum(start == end for start, end, _ in predicted)
        counts['predicted windows that are empty, which hit nothing'] += empty
        for name, windows in (('predicted', predicted), ('true', true)):
            beyond = sum(start < 0 or end > truth['duration'] for start, end, *_ in windows)
            counts[f'{name} windows that reach beyond the video, scored as they are'] += beyond
    if parts['highlights']:
        counts['queries with more or fewer saliency scores than clips, cut or filled with 0'] = sum(
            len(prediction[SALIENCY[0]]) != num_clips(truth['duration'])
            for prediction, truth in pairs
        )
    return notes + [f'{what}: {number}' for what, number in counts.items() if number]


def _check_prediction(where: str, line: dict, error: Refuse) -> None:
    windows, saliency = WINDOWS[0], SALIENCY[0]
    if windows not in line and saliency not in line:
        raise error(f'{where} has no "{windows}" and no "{saliency}"')
    if windows in line:
        check_windows(where, line, windows, '[start, end, score]', error)
    if saliency in line:
        scores = line[saliency]
        if not (isinstance(scores, list) and all(map(is_number, scores))):  # [] of a short video
            raise error(
                f'{where}: "{saliency}" is not a list of finite numbers, one per clip of {CLIP} s'
            )
