"""Figures of tubes, in the loop or from a submission."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import METRICS  # where MMAction2's finds them; `mmn eval` does without

from mmn_plugin.errors import InputError
from mmn_plugin.files import read_json, write_atomically
from mmn_plugin.structures import MomentGrid, cell_bounds, cell_iou, tube_iou

from .base_metric import DumpMetric, VideoResultsMetric
from .predictions import FORMAT, PredictionsError, is_number, require


@dataclass
class TubeResult:
    """Answers to all sentences of one video.

    Attributes:
        video_id (str): The video.
        sentence_index (list[int]): s places in the annotation file's list.
        sentences (list[str]): s sentences.
        ground_truth (list[np.ndarray]): s true tubes; empty where they are not known.
        tubes (list[np.ndarray]): s predicted tubes (n, 5); n = 0 where there is no answer.
        bounds (list[dict]): What the candidates allow each sentence, see `tube_bounds`; empty where
            nobody asked.
    """

    video_id: str
    sentence_index: list[int]
    sentences: list[str]
    ground_truth: list[np.ndarray]
    tubes: list[np.ndarray]
    bounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Name of each sentence in a submission: the video's, or ``video#index`` of several."""
        if len(self.sentences) == 1 and self.sentence_index == [0]:
            return [self.video_id]
        return [f'{self.video_id}#{index}' for index in self.sentence_index]

    @staticmethod
    def by_name(results: Iterable['TubeResult'], kind: str) -> dict[str, np.ndarray]:
        """Tubes of all sentences by the names that a submission uses.

        Args:
            results (Iterable[TubeResult]): Videos.
            kind (str): Which tubes: ``'tubes'`` or ``'ground_truth'``.

        Raises:
            ValueError: If two sentences have one name, as those of the videos ``a`` (of several)
                and ``a#0``.
        """
        found = {}
        for result in results:
            for name, tube in zip(result.names, getattr(result, kind), strict=True):
                if name in found:
                    raise InputError(
                        f'two sentences are {name!r} in a submission, of video '
                        f'{result.video_id!r} and of another; rename one video'
                    )
                found[name] = tube
        return found

    @classmethod
    def from_data_sample(cls, sample: dict) -> 'TubeResult':
        """Take what evaluation needs from a `TubeDataSample` as a dict.

        Raises:
            ValueError: If there are no predictions, or not one for every sentence.
        """
        predicted = sample.get('pred_instances', {}).get('tubes')
        if predicted is None or len(predicted) != len(sample['sentences']):
            raise InputError(
                f'video {sample.get("video_id")!r} reached the metric without a tube '
                'per sentence; it needs a TubeMatchingHead and mode="predict"'
            )
        return cls(
            video_id=sample['video_id'],
            sentence_index=[int(index) for index in sample['sentence_index']],
            sentences=list(sample['sentences']),
            ground_truth=list(sample.get('gt_instances', {}).get('tubes', [])),
            tubes=list(predicted),
        )


def check_thresholds(iou_thrs: Sequence[float]) -> None:
    """Refuse an R of vIoU@R that is none, such as a percentage.

    Raises:
        ValueError: If one is outside [0, 1).
    """
    if any(not 0 <= thr < 1 for thr in iou_thrs):
        raise InputError(f'iou_thrs={list(iou_thrs)}: every R of vIoU@R lies in [0, 1)')


def tube_figures(
    v_iou: Sequence[float], t_iou: Sequence[float], iou_thrs: Sequence[float] = (0.3, 0.5)
) -> dict[str, float]:
    """m_vIoU, m_tIoU and the share of answers with vIoU > R.

    Args:
        v_iou (Sequence[float]): Spatio-temporal IoU of each sentence's answer.
        t_iou (Sequence[float]): Temporal IoU of each.
        iou_thrs (Sequence[float]): The R. Defaults to (0.3, 0.5).

    Returns:
        dict[str, float]: ``m_vIoU``, ``m_tIoU``, ``vIoU@0.3``, ..., all as fractions.

    Raises:
        ValueError: If there is no answer.
    """
    v_iou, t_iou = np.asarray(v_iou, np.float64), np.asarray(t_iou, np.float64)
    if not len(v_iou):
        raise InputError('there is no answer to score')
    shares = {f'vIoU@{thr:g}': float((v_iou > thr).mean()) for thr in iou_thrs}
    return dict(m_vIoU=float(v_iou.mean()), m_tIoU=float(t_iou.mean()), **shares)


def tube_bounds(
    grid: MomentGrid,
    tubes: Sequence[np.ndarray],
    truth: np.ndarray,
    iou_thrs: Sequence[float] = (0.3, 0.5),
) -> dict[str, float]:
    """What candidates allow: the best answer (oracle), and a random tube and span (chance).

    Args:
        grid (MomentGrid): The cells of a tube.
        tubes (Sequence[np.ndarray]): Candidates, (n, 5) each.
        truth (np.ndarray): (m, 5).
        iou_thrs (Sequence[float]): The R of vIoU@R. Defaults to (0.3, 0.5).

    Returns:
        dict[str, float]: ``oracle_m_vIoU``, ``oracle_vIoU@0.3``, ...: those of the cell of highest
        vIoU; ``chance_m_vIoU``, ...: the means over all cells that hold a box, each tube's cells
        weighing the same in all, which is what drawing a tube and then a span gives. All 0 where
        there is no candidate.
    """
    overlaps = weights = np.zeros((1, 1))
    if len(tubes):
        bounds = cell_bounds(grid, [len(tube) for tube in tubes])  # (T, P, 2)
        overlaps = cell_iou(grid, tubes, truth, bounds).astype(np.float64)  # (T, P)
        with_box = bounds[..., 0] < bounds[..., 1]
        weights = with_box / with_box.sum(1, keepdims=True) / len(tubes)
    best = float(overlaps.max())
    result = dict(oracle_m_vIoU=best, chance_m_vIoU=float((overlaps * weights).sum()))
    for thr in iou_thrs:
        result[f'oracle_vIoU@{thr:g}'] = float(best > thr)
        result[f'chance_vIoU@{thr:g}'] = float(((overlaps > thr) * weights).sum())
    return result


FRAME = re.compile('0*[0-9]{1,7}')  # more would not be exact in float32


def write_submission(path: str | Path, answers: Mapping[str, np.ndarray]) -> None:
    """Write answers: name -> ``st_frame``, ``ed_frame`` (the last one) and ``bbox``.

    ``bbox`` maps a frame, as text, to [x1, y1, x2, y2]; a frame inside a gap of the tube is
    absent. An answer without a box has ``st_frame`` and ``ed_frame`` of -1.

    Args:
        path (str | Path): The file; its folder is made.
        answers (Mapping[str, np.ndarray]): Name of a video -> (n, 5) frame, x1, y1, x2, y2.
    """
    content = {}
    for name, tube in sorted(answers.items()):
        frames = [int(frame) for frame in tube[:, 0]]
        # a float32 as a double has the same value, so that scoring the file gives the same figures
        boxes = tube[:, 1:].astype(np.float32).astype(float).tolist()
        content[name] = dict(
            st_frame=frames[0] if frames else -1,
            ed_frame=frames[-1] if frames else -1,
            bbox={str(frame): box for frame, box in zip(frames, boxes, strict=True)},
        )
    write_atomically(path, json.dumps(content) + '\n')


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
    require(isinstance(content, dict), f'{path} is not a JSON object of videos')
    moments = content.get('format') == FORMAT
    require(not moments, f'{path} holds predicted moments, not tubes')
    return {name: _tube(entry, f'{path}: answer {name!r}') for name, entry in content.items()}


def _tube(entry: dict, where: str) -> np.ndarray:
    entry = entry if isinstance(entry, dict) else {}
    bounds, boxes = [entry.get('st_frame'), entry.get('ed_frame')], entry.get('bbox')
    whole = all(is_number(bound) and int(bound) == bound for bound in bounds)
    require(
        whole and isinstance(boxes, dict),
        f'{where} is not {{"st_frame": number, "ed_frame": number, "bbox": '
        '{frame: [x1, y1, x2, y2]}}',
    )
    start, end = map(int, bounds)
    if not boxes:
        require(
            start == end == -1,
            f'{where} has no box in its frames {start} to {end}; where there is no answer, '
            'st_frame and ed_frame are -1',
        )
        return np.zeros((0, 5), np.float32)
    require(0 <= start <= end, f'{where} has the impossible frames {start} to {end}')
    rows: dict[int, list] = {}
    for frame, box in boxes.items():
        here = f'{where}, frame {frame!r}'
        require(FRAME.fullmatch(frame), f'{here} is not the number of a frame')
        other = rows.get(int(frame))
        require(not other, f'{here} occurs twice, also as {other and other[0]!r}')
        require(start <= int(frame) <= end, f'{here} is outside {start} to {end}')
        require(
            isinstance(box, list) and len(box) == 4 and all(map(is_number, box)),
            f'{here}: {box!r} is not a box of four finite numbers',
        )
        x1, y1, x2, y2 = box
        require(
            x1 <= x2 and y1 <= y2,
            f'{here}: the box {box} ends before it begins; expected x1, y1, x2, y2 (not width '
            'and height)',
        )
        rows[int(frame)] = [frame, int(frame), *box]
    return np.array([row[1:] for _, row in sorted(rows.items())], np.float32)


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
    require(
        not unknown,
        f'{len(unknown)} answers are about videos that the ground truth does not have '
        f'({", ".join(unknown[:3])}); is it another split?',
    )
    nothing = np.zeros((0, 5), np.float32)
    overlaps = [tube_iou(answers.get(name, nothing), tube) for name, tube in sorted(truth.items())]
    return tube_figures(*zip(*overlaps, strict=True), iou_thrs)


@METRICS.register_module()
class TubeGroundingMetric(VideoResultsMetric):
    """Spatio-temporal grounding: how well the answered tubes cover the true ones.

    Reported in percent, under ``tubes/``: ``m_vIoU`` (mean spatio-temporal IoU), ``m_tIoU`` (mean
    temporal IoU), ``vIoU@0.3`` (share of sentences with vIoU > 0.3), ..., and ``num_sentences``,
    ``num_videos``. A sentence without an answer counts as 0.

    Args:
        iou_thrs (Sequence[float]): The R of vIoU@R. Defaults to (0.3, 0.5).
        bounds (dict, optional): ``num_clips`` and ``pooling_counts`` of the model's grid; adds
            ``oracle_m_vIoU``, ``oracle_vIoU@R`` (the best that the candidates allow) and
            ``chance_m_vIoU``, ``chance_vIoU@R`` (a random tube and span). Defaults to None.
        require_truth (bool): Whether videos without ground truth are an error. If not, there are no
            figures where no video has any, as in a challenge's test. Defaults to True.
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`; ``prefix`` defaults to ``tubes``.

    Raises:
        ValueError: If a threshold is outside [0, 1).
    """

    default_prefix = 'tubes'
    result_type = TubeResult

    def __init__(
        self,
        iou_thrs: Sequence[float] = (0.3, 0.5),
        bounds: dict | None = None,
        require_truth: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_thresholds(iou_thrs)
        self.iou_thrs = tuple(iou_thrs)
        self.grid = None if bounds is None else MomentGrid(**bounds)
        self.require_truth = require_truth

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep what evaluation needs of a batch, on the CPU.

        Raises:
            ValueError: If a video has no ground truth, and needs it.
        """
        for sample in data_samples:
            result = self.result_type.from_data_sample(sample)
            if not result.ground_truth and self.require_truth:
                raise InputError(
                    f'video {result.video_id!r} has no ground truth, so that it '
                    'cannot be scored; write a submission instead '
                    '(tools/test.py --submission FILE.json)'
                )
            if self.grid is not None:
                result.bounds = [
                    tube_bounds(self.grid, sample['tubes'], truth, self.iou_thrs)
                    for truth in result.ground_truth
                ]
            self.results.append(result)

    def compute_metrics(self, results: list[TubeResult]) -> dict:
        """Figures of all videos, and a line of them in the log.

        Raises:
            ValueError: If some videos have ground truth and others have none.
        """
        results = self.unique_results(results)
        without = [result.video_id for result in results if not result.ground_truth]
        if len(without) == len(results):
            print_log('no video has ground truth: there are no figures', logger='current')
            return {}
        if without:
            raise InputError(
                f'{len(without)} of {len(results)} videos have no ground truth, such '
                f'as {without[0]!r}; score files in which all have it'
            )
        overlaps = [
            tube_iou(tube, truth)
            for result in results
            for tube, truth in zip(result.tubes, result.ground_truth, strict=True)
        ]
        figures = tube_figures(*zip(*overlaps, strict=True), self.iou_thrs)
        bounds = [bound for result in results for bound in result.bounds]
        for name in bounds[0] if bounds else ():
            figures[name] = sum(bound[name] for bound in bounds) / len(bounds)
        figures = {name: 100 * value for name, value in figures.items()}
        shown = ', '.join(f'{name} {value:.2f}' for name, value in figures.items())
        print_log(f'Spatio-temporal grounding (percent): {shown}', logger='current')
        return figures | dict(
            num_sentences=float(len(overlaps)),
            num_videos=float(len({result.video_id for result in results})),
        )


@METRICS.register_module()
class DumpTubeSubmission(DumpMetric):
    """Writes the HC-STVG challenge's JSON: video -> ``st_frame``, ``ed_frame``, ``bbox``.

    Arguments are those of `DumpMetric`.
    """

    result_type = TubeResult

    def compute_metrics(self, results: list[TubeResult]) -> dict:
        """Write the file; there are no figures."""
        answers = TubeResult.by_name(self.unique_results(results), 'tubes')
        write_submission(self.out_file_path, answers)
        print_log(f'{len(answers)} answers written to {self.out_file_path}', logger='current')
        return {}
