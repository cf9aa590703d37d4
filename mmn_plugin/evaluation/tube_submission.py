"""The HC-STVG challenge's JSON, and scoring it."""
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmn_plugin.structures import tube_iou
from mmn_plugin.structures.read_json import read_json

from .functional import tube_figures
from .predictions_error import PredictionsError


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
    return dict(st_frame=frames[0], ed_frame=frames[-1],
                bbox={str(frame): box for frame, box in zip(frames, boxes, strict=True)})


def read_submission(path: str | Path) -> dict[str, np.ndarray]:
    """Read answers.

    Args:
        path (str | Path): A file in the challenge's format.

    Returns:
        dict[str, np.ndarray]: Name of a video -> (n, 5) float32 frame, x1, y1, x2, y2.

    Raises:
        FileNotFoundError: If the file does not exist.
        PredictionsError: If it is not in the format; the message names the video.
    """
    path = Path(path)
    content = read_json(
        path, f'{path} does not exist; tools/test.py --submission writes it',
        PredictionsError)
    if not isinstance(content, dict):
        raise PredictionsError(f'{path} is not a JSON object of videos')
    return {name: _tube(entry, f'{path}: video {name!r}') for name, entry in content.items()}


def _tube(entry: dict, where: str) -> np.ndarray:
    try:
        start, end = int(entry['st_frame']), int(entry['ed_frame'])
        rows = sorted((int(frame), *map(float, box)) for frame, box in entry['bbox'].items())
        tube = np.array(rows, np.float32).reshape(-1, 5)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise PredictionsError(
            f'{where} is not {{"st_frame": ..., "ed_frame": ..., "bbox": {{frame: [x1, y1, x2, '
            f'y2]}}}} ({type(error).__name__}: {error})') from error
    if not np.isfinite(tube).all():
        raise PredictionsError(f'{where} holds a box that is not finite')
    outside = [row[0] for row in rows if not start <= row[0] <= end]
    if outside:
        raise PredictionsError(f'{where} has a box in frame {outside[0]}, outside {start} to {end}')
    return tube


def score_submission(answers: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray],
                     iou_thrs: Sequence[float] = (0.3, 0.5)) -> dict[str, float]:
    """Figures of answers, as `TubeGroundingMetric` finds them.

    Args:
        answers (Mapping[str, np.ndarray]): Name -> tube; one that is absent counts as 0.
        truth (Mapping[str, np.ndarray]): Name -> true tube.
        iou_thrs (Sequence[float]): The R of vIoU@R. Defaults to (0.3, 0.5).

    Returns:
        dict[str, float]: As `tube_figures`, fractions.

    Raises:
        PredictionsError: If an answer is about a video that the ground truth does not know.
    """
    unknown = sorted(answers.keys() - truth.keys())
    if unknown:
        raise PredictionsError(f'{len(unknown)} answers are about videos that the ground truth '
                               f'does not have ({", ".join(unknown[:3])}); is it another split?')
    nothing = np.zeros((0, 5), np.float32)
    overlaps = [tube_iou(answers.get(name, nothing), tube) for name, tube in sorted(truth.items())]
    return tube_figures(*zip(*overlaps, strict=True), iou_thrs)
