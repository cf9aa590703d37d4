"""Scores of a video's clips over time, one panel per sentence."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from mmn_plugin.structures import GroundingDataSample

from . import palette
from .canvas import Canvas
from .text_layout import text_width, wrap
from .time_text import tick_text, time_ticks, time_unit

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
                raise ValueError(
                    f'video {sample.video_id!r} has no score curves: '
                    'pred_instances.curves comes from a model that scores clips'
                )
            curves = dict(score=found)
        for name, values in curves.items():
            if len(values) != len(sample.sentences):
                raise ValueError(
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
                canvas.text(
                    MARGIN, top + LINE * (i + 0.5), line, 10.5, weight='bold', color=palette.TEXT
                )
            panel = top + LINE * len(title) + 4
            self._draw_panel(canvas.inner_axes(MARGIN + LEFT, panel, room - LEFT - 8, PANEL), index)
            top += height
        return canvas.to_array()

    def _draw_legend(self, canvas: Canvas) -> None:
        entries = [
            (name, palette.RUNS[i % len(palette.RUNS)]) for i, name in enumerate(self.curves)
        ]
        if 'gt_instances' in self.sample:
            entries.append(('truth', palette.fade(palette.TRUTH, 0.6)))
        x = MARGIN
        for name, colour in entries:
            canvas.rectangle(x, MARGIN, 18, 4, color=colour)
            canvas.text(x + 24, MARGIN + 2, name, 9.5, color=palette.TEXT)
            x += 24 + text_width(name, 9.5) + 26

    def _draw_panel(self, axes, index: int) -> None:
        duration = self.sample.duration
        if 'gt_instances' in self.sample:
            axes.axvspan(
                *self.sample.gt_instances.moments[index].tolist(),
                color=palette.fade(palette.TRUTH, 0.6),
                linewidth=0,
                zorder=0,
            )
        for i, values in enumerate(self.curves.values()):
            clips = len(values[index])
            middles = (np.arange(clips) + 0.5) * duration / clips
            axes.plot(
                middles,
                values[index],
                color=palette.RUNS[i % len(palette.RUNS)],
                linewidth=1.6,
                marker='o' if clips == 1 else None,
            )
        ticks = time_ticks(duration)
        axes.set_xlim(0, duration)
        axes.set_xticks(ticks, [tick_text(tick, duration) for tick in ticks])
        axes.set_xlabel(time_unit(duration), fontsize=SMALL, color=palette.QUIET)
        axes.tick_params(labelsize=SMALL, colors=palette.QUIET, length=3)
        axes.yaxis.get_major_locator().set_params(nbins=4)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ('left', 'bottom'))
            spine.set_color(palette.QUIET)
