"""Timelines of a video's sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.structures import temporal_iou

from .canvas import (
    GRID,
    PREDICTION,
    QUIET,
    TEXT,
    TRACK,
    TRUTH,
    Canvas,
    fade,
    format_time,
    text_width,
    tick_text,
    time_ticks,
    time_unit,
    wrap,
)


@dataclass
class TimelineRow:
    """A sentence with its moments.

    Attributes:
        sentence (str): The sentence.
        truth (np.ndarray | None): (2,) start and end in seconds, None where unknown.
        moments (np.ndarray): (n, 2) predicted moments in seconds, best first.
        scores (np.ndarray): (n,).
        curve (np.ndarray | None): (K,) scores of K equal parts of the video, see `score_curve`;
            None where unknown.
    """

    sentence: str
    truth: np.ndarray | None = None
    moments: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curve: np.ndarray | None = None

    def iou(self) -> np.ndarray | None:
        """IoU of each predicted moment with the truth, (n,); None where it is unknown."""
        if self.truth is None:
            return None
        truth, moments = torch.as_tensor(self.truth), torch.as_tensor(self.moments)
        return temporal_iou(moments, truth.to(moments.dtype)).numpy()

    @classmethod
    def from_sample(
        cls, sample, top_n: int, truth: bool = True, predictions: bool = True, curves=None
    ) -> list['TimelineRow']:
        """Make the rows of a data sample.

        Args:
            sample (GroundingDataSample): With ``gt_instances``, ``pred_instances`` or both; a NaN
                moment counts as absent.
            top_n (int): Predicted moments per sentence.
            truth (bool): Whether to take the ground truth. Defaults to True.
            predictions (bool): Whether to take the predictions. Defaults to True.
            curves (Tensor | np.ndarray | None): (s, K), a score curve per sentence. Defaults to
                None.

        Raises:
            ValueError: If there is not one curve per sentence.
        """
        rows = [cls(sentence) for sentence in sample.sentences]
        if curves is not None:
            if len(curves) != len(rows):
                raise InputError(
                    f'{len(rows)} sentences of video {sample.video_id} need as many '
                    f'score curves, not {len(curves)}'
                )
            for row, curve in zip(rows, _array(curves), strict=True):
                row.curve = curve
        if truth and 'gt_instances' in sample:
            for row, moment in zip(rows, _array(sample.gt_instances.moments), strict=True):
                row.truth = None if np.isnan(moment).any() else moment
        if predictions and 'pred_instances' in sample:
            found = _array(sample.pred_instances.moments), _array(sample.pred_instances.scores)
            for row, moments, scores in zip(rows, *found, strict=True):
                there = ~np.isnan(moments).any(-1)  # (n,)
                row.moments, row.scores = moments[there][:top_n], scores[there][:top_n]
        return rows


def _array(values) -> np.ndarray:
    return torch.as_tensor(values).detach().float().cpu().numpy()


WIDTH, MARGIN = 960, 20
LABELS = 62  # left of the bars: which moment it is
COLUMN = 52  # right of the bars: a column of figures
LINE, LANE, BAR = 19, 19, 13  # heights of a line of the sentence, a lane, the bar in it
CURVE = 36  # height of the lane of a score curve
THUMBNAILS, GAP, AXIS, HEAD = 72, 16, 46, 26
SENTENCE_SIZE, SMALL, TINY = 10.5, 8.5, 7  # points
TICKS = 12  # at most about so many on the time axis


class Timeline:
    """Draws, for each sentence, the truth and the ranked predictions as bars, and its score curve.

    All curves of a picture have one scale, from 0 to the largest score in it, so that a sentence
    which fits nowhere looks flat beside one that fits.

    Args:
        rows (Sequence[TimelineRow]): The sentences.
        duration (float): Seconds of the video.
        title (str): Heading, the video's name.
        frames (Sequence[np.ndarray] | None): Frames (H, W, 3) uint8 RGB at even distances over the
            whole video, for thumbnails along the top. As many as fit are shown. Defaults to None.
        note (str): A last line under the axis. Defaults to none.
    """

    def __init__(
        self,
        rows: Sequence[TimelineRow],
        duration: float,
        title: str,
        frames: Sequence[np.ndarray] | None = None,
        note: str = '',
    ) -> None:
        self.rows, self.duration, self.title, self.note = rows, duration, title, note
        self.frames = frames if frames is not None and len(frames) else None
        self.top_score = max(
            (float(row.curve.max()) for row in rows if row.curve is not None), default=0.0
        )
        self.columns = ['score'] if any(len(row.moments) for row in rows) else []
        if self.columns and any(row.truth is not None for row in rows):
            self.columns.append('IoU')
        self.left = MARGIN + LABELS
        self.right = WIDTH - MARGIN - COLUMN * max(len(self.columns), 1)
        room = self.right - MARGIN
        self.titles = [wrap(f'“{row.sentence}”', room, SENTENCE_SIZE, 'bold') for row in rows]

    def draw(self) -> np.ndarray:
        """Draw the picture: (H, 960, 3) uint8, RGB; its height follows from the contents."""
        top = MARGIN + HEAD + (THUMBNAILS + GAP + 4 if self.frames is not None else 0)
        heights = [self._height(i) for i in range(len(self.rows))]
        bottom = top + sum(heights)
        self.canvas = Canvas(WIDTH, bottom + AXIS + (LINE if self.note else 0))
        self._draw_heading()
        for index, height in enumerate(heights):
            self._draw_row(index, top)
            top += height
        self._draw_axis(bottom)
        if self.note:
            self.canvas.text(MARGIN, bottom + AXIS, self.note, SMALL, color=QUIET)
        return self.canvas.to_array()

    def _x(self, seconds: float) -> float:
        share = min(max(float(seconds) / self.duration, 0.0), 1.0)
        return self.left + share * (self.right - self.left)

    def _height(self, index: int) -> int:
        row = self.rows[index]
        return LINE * len(self.titles[index]) + 4 + self._lanes_height(row) + GAP

    def _lanes_height(self, row: TimelineRow) -> int:
        lanes = len(row.moments) + (row.truth is not None)
        return LANE * max(lanes, 1) + (CURVE if self._has_curve(row) else 0)

    def _has_curve(self, row: TimelineRow) -> bool:
        return row.curve is not None and self.top_score > 0

    def _draw_heading(self) -> None:
        canvas, y = self.canvas, MARGIN + 4
        length = format_time(self.duration, self.duration)
        unit = ' s' if self.duration <= 120 else ''
        tail = f'   {length}{unit}'
        room = self.right - MARGIN - text_width(tail, 10)
        title = wrap(self.title, room, 11.5, 'bold', max_lines=1)[0]
        canvas.text(MARGIN, y, title, 11.5, weight='bold', color=TEXT)
        canvas.text(MARGIN + text_width(title, 11.5, 'bold'), y, tail, 10, color=QUIET)
        if self.frames is not None:
            self._draw_thumbnails(MARGIN + HEAD)

    def _draw_thumbnails(self, top: int) -> None:
        """Each thumbnail stands over the part of the video whose middle it shows."""
        height, width = self.frames[0].shape[:2]
        room, gap = self.right - self.left, 3
        widest = THUMBNAILS * width / height
        count = max(1, min(len(self.frames), round((room + gap) / (widest + gap))))
        slot = room / count
        shown = min(slot - gap, widest)  # never wider than its share of the time
        for i in range(count):
            frame = self.frames[int((i + 0.5) / count * len(self.frames))]
            tall = shown * height / width
            self.canvas.picture(
                frame,
                self.left + (i + 0.5) * slot - shown / 2,
                top + (THUMBNAILS - tall) / 2,
                shown,
                tall,
            )

    def _draw_row(self, index: int, top: int) -> None:
        row, canvas = self.rows[index], self.canvas
        for line in self.titles[index]:
            canvas.text(MARGIN, top + LINE / 2, line, SENTENCE_SIZE, weight='bold', color=TEXT)
            top += LINE
        for i, name in enumerate(self.columns if len(row.moments) else []):
            canvas.text(self._column(i), top - LINE / 2, name, SMALL, ha='right', color=QUIET)
        top += 4
        lanes = len(row.moments) + (row.truth is not None)
        for lane in range(max(lanes, 1)):
            canvas.rectangle(
                self.left,
                top + LANE * lane + (LANE - BAR) / 2,
                self.right - self.left,
                BAR,
                color=TRACK,
                zorder=0,
            )
        bottom = top + self._lanes_height(row)
        if not lanes:
            canvas.text(self.left + 6, top + LANE / 2, 'no moment', SMALL, color=QUIET)
        if lanes or self._has_curve(row):
            self._draw_grid(top, bottom)
        if row.truth is not None:
            self._draw_truth(row, top, bottom)
            top += LANE
        self._draw_predictions(row, top)
        if self._has_curve(row):
            self._draw_curve(row.curve, bottom - CURVE, bottom)

    def _draw_grid(self, top: float, bottom: float) -> None:
        for tick in time_ticks(self.duration, TICKS):
            self.canvas.axes.plot(
                [self._x(tick)] * 2, [top, bottom], color=GRID, linewidth=0.8, zorder=0.5
            )

    def _draw_truth(self, row: TimelineRow, top: float, bottom: float) -> None:
        """The bar of the ground truth, and its shadow over the predictions."""
        left, right = self._x(row.truth[0]), self._x(row.truth[1])
        self.canvas.rectangle(
            left,
            top + LANE / 2,
            right - left,
            bottom - top - LANE / 2,
            color=TRUTH,
            alpha=0.16,
            zorder=0.7,
        )
        self._draw_lane('truth', row.truth, top, TRUTH, TEXT)

    def _draw_predictions(self, row: TimelineRow, top: float) -> None:
        overlaps = row.iou()
        for rank, (moment, score) in enumerate(zip(row.moments, row.scores, strict=True)):
            colour = fade(PREDICTION, min(0.18 * rank, 0.72))
            self._draw_lane(f'rank {rank + 1}', moment, top, colour, 'white' if rank < 2 else TEXT)
            figures = [f'{score:.2f}'] + ([f'{overlaps[rank]:.2f}'] if overlaps is not None else [])
            for i, figure in enumerate(figures):
                self.canvas.text(
                    self._column(i), top + LANE / 2, figure, SMALL, ha='right', color=TEXT
                )
            top += LANE

    def _draw_curve(self, curve: np.ndarray, top: float, bottom: float) -> None:
        """The score over time, in steps of a clip, and its scale at the right."""
        canvas, base, high = self.canvas, bottom - 3, top + 6
        edges = np.linspace(self.left, self.right, len(curve) + 1).repeat(2)[1:-1]
        heights = base - (base - high) * (np.maximum(curve, 0) / self.top_score).repeat(2)
        canvas.axes.fill_between(
            edges, heights, base, color=PREDICTION, alpha=0.18, linewidth=0, zorder=0.8
        )
        canvas.axes.plot(edges, heights, color=PREDICTION, linewidth=1.2, zorder=0.9)
        canvas.axes.plot([self.left, self.right], [base] * 2, color=GRID, linewidth=0.8, zorder=0.6)
        canvas.text(self.left - 8, (high + base) / 2, 'score', SMALL, ha='right', color=QUIET)
        for y, value in ((high, f'{self.top_score:.2f}'), (base - 3, '0')):
            canvas.text(self.right + 6, y, value, TINY, color=QUIET)

    def _draw_lane(self, label: str, moment, top: float, colour: str, inside: str) -> None:
        """One bar with its label, and its times beside it or, where it is long, in it."""
        canvas, middle = self.canvas, top + LANE / 2
        canvas.text(self.left - 8, middle, label, SMALL, ha='right', color=QUIET)
        left, right = self._x(moment[0]), self._x(moment[1])
        canvas.rectangle(left, middle - BAR / 2, max(right - left, 2.5), BAR, color=colour)
        times = ' \N{EN DASH} '.join(format_time(t, self.duration) for t in moment)
        width = text_width(times, SMALL)
        if right + 6 + width <= self.right:
            canvas.text(right + 6, middle, times, SMALL, color=TEXT)
        elif left - 6 - width >= self.left:
            canvas.text(left - 6, middle, times, SMALL, ha='right', color=TEXT)
        else:
            canvas.text((left + right) / 2, middle, times, SMALL, ha='center', color=inside)

    def _draw_axis(self, y: float) -> None:
        canvas, y = self.canvas, y - GAP + 6
        canvas.axes.plot([self.left, self.right], [y, y], color=QUIET, linewidth=1)
        for tick in time_ticks(self.duration, TICKS):
            canvas.axes.plot([self._x(tick)] * 2, [y, y + 4], color=QUIET, linewidth=1)
            canvas.text(
                self._x(tick),
                y + 14,
                tick_text(tick, self.duration),
                SMALL,
                ha='center',
                color=QUIET,
            )
        canvas.text(
            (self.left + self.right) / 2,
            y + 31,
            f'time ({time_unit(self.duration)})',
            SMALL,
            ha='center',
            color=QUIET,
        )

    def _column(self, index: int) -> float:
        """Right edge of a column of figures."""
        return self.right + COLUMN * (index + 1) - 6
