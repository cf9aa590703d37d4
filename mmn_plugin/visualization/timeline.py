"""Timelines of a video's sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.structures import GroundingDataSample, temporal_iou

from .canvas import (
    GRID,
    PREDICTION,
    QUIET,
    SMALL,
    TEXT,
    TRACK,
    TRUTH,
    fade,
    format_time,
    new_figure,
    plain,
    resize,
    style_axes,
    text_width,
    tick_text,
    time_ticks,
    time_unit,
    to_array,
    wrap,
)


@dataclass
class TimelineRow:
    """A sentence with its moments.

    Attributes:
        sentence (str): The sentence.
        truth (np.ndarray | None): (W, 2) true windows, start and end in seconds; none (W = 0) where
            it does not occur, None where that is unknown.
        moments (np.ndarray): (n, 2) predicted moments in seconds, best first.
        scores (np.ndarray): (n,).
        curve (np.ndarray | None): (K,) scores of K equal parts of the video, see `score_curve`;
            None where unknown.
        rejected (bool): Whether the prediction is that it does not occur. Defaults to False.
    """

    sentence: str
    truth: np.ndarray | None = None
    moments: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curve: np.ndarray | None = None
    rejected: bool = False

    def iou(self) -> np.ndarray | None:
        """IoU of each predicted moment with the true window that it fits best, (n,); None where
        there is none.
        """
        if self.truth is None or not len(self.truth):
            return None
        moments, windows = map(torch.as_tensor, (self.moments, self.truth))
        return temporal_iou(moments[:, None], windows).amax(1).numpy()

    @classmethod
    def from_sample(
        cls, sample, top_n: int, truth: bool = True, predictions: bool = True, curves=None
    ) -> list['TimelineRow']:
        """Make the rows of a data sample; arguments as of `draw_timeline`.

        A NaN moment is none, and a truth of NaN is unknown.

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
            for row, windows in zip(rows, map(_array, sample.windows), strict=True):
                row.truth = None if np.isnan(windows).any() else windows
        if predictions and 'pred_instances' in sample:
            found = _array(sample.pred_instances.moments), _array(sample.pred_instances.scores)
            for row, moments, scores in zip(rows, *found, strict=True):
                there = ~np.isnan(moments).any(-1)  # (n,)
                row.moments, row.scores = moments[there][:top_n], scores[there][:top_n]
                row.rejected = not there.any()
        return rows


def _array(values) -> np.ndarray:
    return torch.as_tensor(values).detach().float().cpu().numpy()


def draw_timeline(
    sample: GroundingDataSample,
    frames: Sequence | None = None,
    top_n: int = 3,
    draw_gt: bool = True,
    draw_pred: bool = True,
    max_sentences: int = 8,
    curves=None,
) -> np.ndarray:
    """Draw ground truth and ranked predictions of each sentence as bars over time.

    With ``curves`` the score over time is drawn below the bars.

    Args:
        sample (GroundingDataSample): The video, its sentences and their moments.
        frames (Sequence[np.ndarray] | None): Frames (H, W, 3) uint8 RGB at even distances over
            the video, see `sample_frames`. Defaults to None: no thumbnails.
        top_n (int): Predicted moments per sentence. Defaults to 3.
        draw_gt (bool): Whether to draw the ground truth, where known. Defaults to True.
        draw_pred (bool): Whether to draw the predictions, where there are. Defaults to True.
        max_sentences (int): Further ones are counted below the picture. Defaults to 8.
        curves (Tensor | np.ndarray | None): (s, K), a score per sentence and K-th of the
            video, see `score_curve`. Defaults to None: no curves.

    Returns:
        np.ndarray: (H, 960, 3) uint8, RGB.

    Raises:
        ValueError: If there is not one curve per sentence.
    """
    rows = TimelineRow.from_sample(sample, top_n, draw_gt, draw_pred, curves)
    left_out = len(rows) - max_sentences
    note = f'{left_out} more sentences are not shown' if left_out > 0 else ''
    return Timeline(rows[:max_sentences], sample.duration, sample.video_id, frames, note).draw()


WIDTH, LEFT = 960, 82  # of the picture, and of what is left of its bars: which moment it is
HEAD, FOOT = 46, 48  # pixels above and below the axes
COLUMN = 52  # pixels of a column of figures, right of the bars
LANE = 19  # pixels of a bar with the space around it, and of a line of text: the unit of height
BAR, CURVE, THUMBNAILS, GAP = 0.68, 1.9, 3.8, 0.9  # heights in lanes
TICKS = 12  # at most about so many on the time axis


class Timeline:
    """Draws, for each sentence, the truth and the ranked predictions as bars, and its score curve.

    All is in one axes of seconds and lanes, y pointing down. All curves of a picture have one
    scale, from 0 to the largest score in it, so that a sentence which fits nowhere looks flat
    beside one that fits.

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
        curves = [float(row.curve.max()) for row in rows if row.curve is not None]
        self.top_score = max(curves, default=0.0)
        self.columns = ['score'] if any(len(row.moments) for row in rows) else []
        if self.columns and any(row.iou() is not None for row in rows):
            self.columns.append('IoU')
        self.room = WIDTH - LEFT - COLUMN * max(len(self.columns), 1) - 20  # pixels of the bars
        self.pixel = duration / self.room  # its width in seconds

    def draw(self) -> np.ndarray:
        """Draw the picture: (H, 960, 3) uint8, RGB; its height follows from the contents."""
        self.figure = new_figure(WIDTH, WIDTH, layout=None)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.top, self.labels = 0.0, {}
        self._draw_heading()
        for row in self.rows:
            self._draw_row(row)
        self.top -= GAP * 2 / 3
        height = HEAD + LANE * self.top + FOOT + (LANE if self.note else 0)
        resize(self.figure, WIDTH, height)
        below = 1 - (HEAD + LANE * self.top) / height
        share = LANE * self.top / height
        self.axes.set_position((LEFT / WIDTH, below, self.room / WIDTH, share))
        self._draw_axes()
        if self.note:
            style = plain(color=QUIET, size=SMALL)
            self.figure.text(20 / WIDTH, 0.5 * LANE / height, self.note, **style)
        return to_array(self.figure)

    def _beside(self, x: float, y: float, pixels: float, text: str, **style) -> None:
        """Write at a place of the axes, moved by pixels to the right."""
        style = plain(size=SMALL, va='center') | style
        self.axes.annotate(
            text, (x, y), (pixels, 0), textcoords='offset pixels', annotation_clip=False, **style
        )

    def _draw_heading(self) -> None:
        length = format_time(self.duration, self.duration) + ' s' * (self.duration <= 120)
        room = self.room + LEFT - 40 - text_width(length, 10)
        title = wrap(self.title, room, 11.5, 'bold', max_lines=1)[0]
        self._beside(0, -0.8, 20 - LEFT, title, size=11.5, weight='bold')
        end = 20 - LEFT + text_width(title, 11.5, 'bold')
        self._beside(0, -0.8, end + 10, length, size=10, color=QUIET)
        if self.frames is not None:
            self._draw_thumbnails()
            self.top += THUMBNAILS + GAP

    def _draw_thumbnails(self) -> None:
        """Each thumbnail stands over the part of the video whose middle it shows."""
        height, width = self.frames[0].shape[:2]
        widest, gap = THUMBNAILS * LANE * width / height, 3  # pixels
        count = round((self.room + gap) / (widest + gap))
        count = max(1, min(len(self.frames), count))
        shown = min(self.room / count - gap, widest)  # never wider than its share of the time
        wide, tall = shown * self.pixel / 2, shown * height / width / LANE / 2
        for share in (np.arange(count) + 0.5) / count:
            x, y = share * self.duration, THUMBNAILS / 2
            extent = x - wide, x + wide, y + tall, y - tall
            self.axes.imshow(
                self.frames[int(share * len(self.frames))], extent=extent, aspect='auto'
            )

    def _draw_row(self, row: TimelineRow) -> None:
        lines = wrap(f'“{row.sentence}”', self.room + LEFT - 20, 10.5, 'bold')
        for i, line in enumerate(lines):
            self._beside(0, self.top + i + 0.5, 20 - LEFT, line, size=10.5, weight='bold')
        self.top += len(lines)
        for i, name in enumerate(self.columns if len(row.moments) else []):
            self._figure(i, self.top - 0.5, name, color=QUIET)
        top = self.top = self.top + 0.2
        self._draw_truth(row)
        below = self.top - 0.5
        figures = [values for values in (row.scores, row.iou()) if values is not None]
        for rank, (moment, *values) in enumerate(zip(row.moments, *figures, strict=True)):
            for i, value in enumerate(values):
                self._figure(i, self.top + 0.5, f'{value:.2f}')
            color = fade(PREDICTION, min(0.18 * rank, 0.72))
            self._draw_lane(f'rank {rank + 1}', [moment], color, 'white' if rank < 2 else TEXT)
        if row.rejected:
            self._draw_words('probably not in this video')
        if row.curve is not None and self.top_score > 0:
            self._draw_curve(row.curve)
        if self.top > top:
            ticks = time_ticks(self.duration, TICKS)
            self.axes.vlines(ticks, top, self.top, color=GRID, linewidth=0.8, zorder=0.5)
        for window in row.truth if row.truth is not None else ():  # its shadow over the predictions
            self.axes.fill_betweenx(
                [below, self.top], *window, color=TRUTH, alpha=0.16, lw=0, zorder=0.7
            )
        self.top += GAP

    def _figure(self, column: int, y: float, text: str, **style) -> None:
        """A figure in a column right of the bars."""
        self._beside(self.duration, y, COLUMN * (column + 1) - 6, text, ha='right', **style)

    def _draw_track(self) -> None:
        self.axes.barh(self.top + 0.5, self.duration, BAR, color=TRACK, zorder=0)

    def _draw_truth(self, row: TimelineRow) -> None:
        """The true windows; those that touch have a lane each."""
        if row.truth is None:
            return
        if not len(row.truth):
            self._draw_words('does not occur', 'truth')
        lanes: list[list] = []
        for window in sorted(row.truth.tolist()):
            apart = [lane for lane in lanes if lane[-1][1] + 3 * self.pixel <= window[0]]
            if apart:
                apart[0].append(window)
            else:
                lanes.append([window])
        for place, lane in enumerate(lanes):
            self._draw_lane('' if place else 'truth', lane, TRUTH, TEXT)

    def _draw_words(self, words: str, label: str = '') -> None:
        """A lane that says something in place of bars."""
        self._draw_track()
        self.labels[self.top + 0.5] = label
        self._beside(0, self.top + 0.5, 6, words, color=QUIET)
        self.top += 1

    def _draw_lane(self, label: str, moments: Sequence, color: str, inside: str) -> None:
        """Bars with their label, and the times of each beside it or, where it is long, in it."""
        self._draw_track()
        y, taken = self.top + 0.5, 0.0
        self.labels[y] = label
        starts = [float(np.clip(start, 0, self.duration)) for start, _ in moments]
        for moment, free in zip(moments, [*starts[1:], self.duration], strict=True):
            start, end = np.clip(np.asarray(moment, float), 0, self.duration)
            length = max(end - start, 2.5 * self.pixel)
            self.axes.barh(y, length, BAR, min(start, self.duration - length), color=color)
            times = ' \N{EN DASH} '.join(format_time(t, self.duration) for t in moment)
            room = (6 + text_width(times, SMALL)) * self.pixel
            if end + room <= free:
                self._beside(end, y, 6, times)
                taken = end + room
            elif start - room >= taken:
                self._beside(start, y, -6, times, ha='right')
                taken = end
            else:
                if len(moments) == 1 or length >= room:  # else there is no place for it
                    self._beside((start + end) / 2, y, 0, times, ha='center', color=inside)
                taken = end
        self.top += 1

    def _draw_curve(self, curve: np.ndarray) -> None:
        """The score over time, in steps of a clip, and its scale at the right."""
        base, high = self.top + CURVE - 0.15, self.top + 0.3
        heights = base - (base - high) * np.maximum(curve, 0) / self.top_score
        edges = np.linspace(0, self.duration, len(curve) + 1)
        style = dict(baseline=base, color=PREDICTION)
        self.axes.stairs(heights, edges, fill=True, alpha=0.18, zorder=0.8, **style)
        line = dict(linewidth=1.2, zorder=0.9, clip_on=False)
        self.axes.stairs(heights, edges, **line, **(style | dict(baseline=None)))
        self.axes.hlines(base, 0, self.duration, color=GRID, linewidth=0.8, zorder=0.6)
        self.labels[(base + high) / 2] = 'score'
        for y, value in ((high, f'{self.top_score:.2f}'), (base - 0.15, '0')):
            self._beside(self.duration, y, 6, value, size=7, color=QUIET)
        self.top += CURVE

    def _draw_axes(self) -> None:
        ticks = time_ticks(self.duration, TICKS)
        self.axes.set(xlim=(0, self.duration), ylim=(self.top, 0))
        self.axes.set_xticks(ticks, [tick_text(tick, self.duration) for tick in ticks])
        self.axes.set_yticks(list(self.labels), list(self.labels.values()), va='center')
        style_axes(self.axes, f'time ({time_unit(self.duration)})')
        self.axes.spines['left'].set_visible(False)
        self.axes.tick_params(axis='y', length=0, pad=8)
