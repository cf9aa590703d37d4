"""The HC-STVG challenge's JSON, and scoring it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmn_plugin.structures import tube_iou
from mmn_plugin.structures.read_json import read_json

from .functional import check_thresholds, tube_figures
from .predictions import FORMAT
from .predictions_error import PredictionsError

FRAME = re.compile('0*[0-9]{1,7}')  # more would not be exact in float32
LARGEST = float(np.finfo(np.float32).max)


def write_submission(path: str | Path, answers: Mapping[str, np.ndarray]) -> None:
    """Write answers: name -> ``st_frame``, ``ed_frame`` (the last one) and ``bbox``.

    ``bbox`` maps a frame, as text, to [x1, y1, x2, y2]; a frame inside a gap of the tube is
    absent. An answer without a box has ``st_frame`` and ``ed_frame`` of -1.

    Args:
        path (str | Path): The file; its folder is made.
        answers (Mapping[str, np.ndarray]): Name of a video -> (n, 5) frame, x1, y1, x2, y2.
    """
    content = {name: _as_json(tube) for name, tube in sorted(answers.items())}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + '.part')
    unfinished.write_text(json.dumps(content) + '\n', encoding='utf-8')
    os.replace(unfinished, path)


def _as_json(tube: np.ndarray) -> dict:
    if not len(tube):
        return dict(st_frame=-1, ed_frame=-1, bbox={})
    frames = [int(frame) for frame in tube[:, 0]]
    # a float32 as a double has the same value, so that scoring the file gives the same figures
    boxes = tube[:, 1:].astype(np.float32).astype(float).tolist()
    return dict(
        st_frame=frames[0],
        ed_frame=frames[-1],
        bbox={str(frame): box for frame, box in zip(frames, boxes, strict=True)},
    )


def read_submission(path: str | Path) -> dict[str, np.ndarray]:
    """Read answers.

    Boxes are what counts: a frame without one, even at an end of ``st_frame`` to ``ed_frame``, is
    no part of the answer. Numbers may have zeros in front (``"007"``); other keys of an answer are
    left alone.

    Args:
        path (str | Path): A file in the challenge's format.

    Returns:
        dict[str, np.ndarray]: Name of an answer (video, or video#sentence) -> (n, 5) float32
        frame, x1, y1, x2, y2, frames rising.

    Raises:
        FileNotFoundError: If the file does not exist.
        PredictionsError: If it is not in the format, or an answer is impossible: a name or a frame
            twice, a span that ends before it begins or has no box at all, a frame outside it or
            below 0, a box that ends before it begins (x2 = x1 is one pixel), NaN, or something
            else than numbers; the message names answer and frame.
    """
    path = Path(path)
    content = read_json(
        path, f'{path} does not exist; tools/test.py --submission writes it', PredictionsError
    )
    if not isinstance(content, dict):
        raise PredictionsError(f'{path} is not a JSON object of videos')
    if content.get('format') == FORMAT:
        raise PredictionsError(
            f'{path} holds predicted moments; tools/analysis_tools/eval_predictions.py scores these'
        )
    return {name: _tube(entry, f'{path}: answer {name!r}') for name, entry in content.items()}


def _tube(entry: dict, where: str) -> np.ndarray:
    bounds = [entry.get(key) for key in ('st_frame', 'ed_frame')] if isinstance(entry, dict) else []
    if not bounds or not all(map(_is_whole, bounds)) or not isinstance(entry.get('bbox'), dict):
        raise PredictionsError(
            f'{where} is not {{"st_frame": number, "ed_frame": number, "bbox": '
            '{frame: [x1, y1, x2, y2]}}'
        )
    start, end = map(int, bounds)
    if not entry['bbox']:
        if start != -1 or end != -1:
            raise PredictionsError(
                f'{where} has no box in its frames {start} to {end}; where there'
                ' is no answer, st_frame and ed_frame are -1'
            )
        return np.zeros((0, 5), np.float32)
    if not 0 <= start <= end:
        raise PredictionsError(f'{where} has the impossible frames {start} to {end}')
    rows: dict[int, list] = {}
    for frame, box in entry['bbox'].items():
        here = f'{where}, frame {frame!r}'
        if not FRAME.fullmatch(frame):
            raise PredictionsError(f'{here} is not the number of a frame')
        number = int(frame)
        if number in rows:
            raise PredictionsError(f'{here} occurs twice, also as {rows[number][0]!r}')
        if not start <= number <= end:
            raise PredictionsError(f'{here} is outside {start} to {end}')
        _check_box(box, here)
        rows[number] = [frame, number, *box]
    return np.array([row[1:] for _, row in sorted(rows.items())], np.float32)


def _check_box(box: list, where: str) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise PredictionsError(f'{where}: {box!r} is not a box of four finite numbers')
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        raise PredictionsError(
            f'{where}: the box {box} ends before it begins; expected x1, y1, '
            'x2, y2 (not width and height)'
        )


def _is_number(value) -> bool:
    """Whether a value is a number that float32 holds; true and false are none."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) <= LARGEST  # NaN is not


def _is_whole(value) -> bool:
    return _is_number(value) and int(value) == value


def score_submission(
    answers: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    iou_thrs: Sequence[float] = (0.3, 0.5),
) -> dict[str, float]:
    """Figures of answers, as `TubeGroundingMetric` finds them.

    Args:
        answers (Mapping[str, np.ndarray]): Name -> tube, as `read_submission` gives it; one that
            is absent counts as 0.
        truth (Mapping[str, np.ndarray]): Name -> true tube.
        iou_thrs (Sequence[float]): The R of vIoU@R. Defaults to (0.3, 0.5).

    Returns:
        dict[str, float]: As `tube_figures`, fractions.

    Raises:
        PredictionsError: If an answer is about a video that the ground truth does not know.
        ValueError: If a threshold is outside [0, 1).
    """
    check_thresholds(iou_thrs)
    unknown = sorted(answers.keys() - truth.keys())
    if unknown:
        raise PredictionsError(
            f'{len(unknown)} answers are about videos that the ground truth '
            f'does not have ({", ".join(unknown[:3])}); is it another split?'
        )
    nothing = np.zeros((0, 5), np.float32)
    overlaps = [tube_iou(answers.get(name, nothing), tube) for name, tube in sorted(truth.items())]
    return tube_figures(*zip(*overlaps, strict=True), iou_thrs)
