"""Scores over a video as curves."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import GroundingDataSample, MomentGrid

from .canvas import (
    QUIET,
    RUNS,
    TEXT,
    TRUTH,
    Canvas,
    fade,
    text_width,
    tick_text,
    time_ticks,
    time_unit,
    wrap,
)


def score_curve(grid: MomentGrid, values) -> Tensor:
    """How well the best moment around each clip fits.

    At a clip the curve has the largest score of all moments that contain the clip. So it peaks
    over the moment of rank 1 with that moment's score, and never hides a rival elsewhere.

    Args:
        grid (MomentGrid): Which moments exist.
        values (Tensor | np.ndarray): (P,) or (s, P), a score per moment, before NMS.

    Returns:
        Tensor: (N,) or (s, N) float32, one value per clip.

    Raises:
        ValueError: If there is not one value per moment.
    """
    values = torch.as_tensor(values).detach().float().cpu()  # (..., P)
    if values.shape[-1:] != (grid.num_moments,):
        raise InputError(
            f'a curve of {grid.num_moments} moments needs as many values, not {tuple(values.shape)}'
        )
    best = grid.to_map(values, fill=-math.inf)  # (..., N, N): start, end
    best = best.cummax(-2).values  # that start at a clip or before it
    best = best.flip(-1).cummax(-1).values.flip(-1)  # and end at it or after it
    return best.diagonal(dim1=-2, dim2=-1)  # (..., N)


def span_curve(spans, values, duration: float, steps: int = 96) -> Tensor:
    """As `score_curve`, for moments that are no grid, such as those of a video in windows.

    Args:
        spans (Tensor): (U, 2) start and end of the moments in seconds.
        values (Tensor): (U,) their scores.
        duration (float): Seconds of the video.
        steps (int): Values of the curve. Defaults to 96.

    Returns:
        Tensor: (steps,) float32; 0 where there is no moment.
    """
    spans, values = (torch.as_tensor(value).detach().float().cpu() for value in (spans, values))
    first = (spans[:, 0] / duration * steps).round().long().clamp(0, steps - 1)  # (U,)
    last = (spans[:, 1] / duration * steps).round().long().sub(1).clamp(0, steps - 1)
    last = torch.maximum(first, last)
    table = torch.zeros(steps, steps)  # the best score of the moments from one step to another
    place = first * steps + last
    table.view(-1).scatter_reduce_(0, place, values, 'amax')
    best = table.cummax(0).values.flip(-1).cummax(-1).values.flip(-1)
    return best.diagonal()


WIDTH, MARGIN, LEFT, PANEL, LINE, BELOW = 720, 16, 44, 110, 19, 46
SMALL = 8.5


class ScoreCurvesPicture:
    """Draws the scores of each sentence, the truth behind them where it is known.

    Args:
        sample (GroundingDataSample): Sentences, duration and perhaps ground truth.
        curves (Mapping[str, Tensor] | None): Name -> (s, N) scores of N clips of equal length, such
            as those before and after refinement. Defaults to None: ``pred_instances.curves``.

    Raises:
        ValueError: If there is no curve, or not one for each sentence.
    """

    def __init__(
        self, sample: GroundingDataSample, curves: Mapping[str, Tensor] | None = None
    ) -> None:
        if curves is None:
            found = sample.get('pred_instances', {}).get('curves')
            if found is None:
                raise InputError(
                    f'video {sample.video_id!r} has no score curves: '
                    'pred_instances.curves comes from a model that scores clips'
                )
            curves = dict(score=found)
        for name, values in curves.items():
            if len(values) != len(sample.sentences):
                raise InputError(
                    f'the curves {name!r} of video {sample.video_id!r} are '
                    f'{len(values)} for {len(sample.sentences)} sentences'
                )
        self.sample = sample
        self.curves = {
            name: values.detach().float().cpu().numpy() for name, values in curves.items()
        }

    def draw(self) -> np.ndarray:
        """Draw the picture: (H, 720, 3) uint8, RGB."""
        room = WIDTH - 2 * MARGIN
        titles = [wrap(f'“{text}”', room, 10.5, 'bold') for text in self.sample.sentences]
        heights = [LINE * len(title) + PANEL + BELOW for title in titles]
        canvas = Canvas(WIDTH, 2 * MARGIN + LINE + sum(heights))
        self._draw_legend(canvas)
        top = MARGIN + LINE
        for index, (title, height) in enumerate(zip(titles, heights, strict=True)):
            for i, line in enumerate(title):
                canvas.text(MARGIN, top + LINE * (i + 0.5), line, 10.5, weight='bold', color=TEXT)
            panel = top + LINE * len(title) + 4
            self._draw_panel(canvas.inner_axes(MARGIN + LEFT, panel, room - LEFT - 8, PANEL), index)
            top += height
        return canvas.to_array()

    def _draw_legend(self, canvas: Canvas) -> None:
        entries = [(name, RUNS[i % len(RUNS)]) for i, name in enumerate(self.curves)]
        if 'gt_instances' in self.sample:
            entries.append(('truth', fade(TRUTH, 0.6)))
        x = MARGIN
        for name, colour in entries:
            canvas.rectangle(x, MARGIN, 18, 4, color=colour)
            canvas.text(x + 24, MARGIN + 2, name, 9.5, color=TEXT)
            x += 24 + text_width(name, 9.5) + 26

    def _draw_panel(self, axes, index: int) -> None:
        duration = self.sample.duration
        if 'gt_instances' in self.sample:
            axes.axvspan(
                *self.sample.gt_instances.moments[index].tolist(),
                color=fade(TRUTH, 0.6),
                linewidth=0,
                zorder=0,
            )
        for i, values in enumerate(self.curves.values()):
            clips = len(values[index])
            middles = (np.arange(clips) + 0.5) * duration / clips
            axes.plot(
                middles,
                values[index],
                color=RUNS[i % len(RUNS)],
                linewidth=1.6,
                marker='o' if clips == 1 else None,
            )
        ticks = time_ticks(duration)
        axes.set_xlim(0, duration)
        axes.set_xticks(ticks, [tick_text(tick, duration) for tick in ticks])
        axes.set_xlabel(time_unit(duration), fontsize=SMALL, color=QUIET)
        axes.tick_params(labelsize=SMALL, colors=QUIET, length=3)
        axes.yaxis.get_major_locator().set_params(nbins=4)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ('left', 'bottom'))
            spine.set_color(QUIET)
