"""The visualizer that hooks and inferencers call."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmaction.registry import VISUALIZERS
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from mmn_plugin.errors import InputError
from mmn_plugin.features import sample_frames
from mmn_plugin.structures import GroundingDataSample, TubeDataSample

from .curves import draw_score_curves
from .moment_map import draw_moment_map
from .timeline import draw_timeline
from .tubes import draw_tubes


@VISUALIZERS.register_module()
class GroundingVisualizer(Visualizer):
    """Draws timelines, moment maps and tubes, and hands them to any visualization back end.

    Args:
        **kwargs: ``name``, ``vis_backends``, ``save_dir`` and so on, see
            `mmengine.visualization.Visualizer`.

    Examples:
        >>> visualizer = GroundingVisualizer(
        ...     vis_backends=[dict(type='LocalVisBackend')], save_dir='out')
        >>> visualizer.add_datasample('kitchen', 'kitchen.mp4', sample)  # out/vis_data/vis_image/
        >>> image = visualizer.draw_moment_map(grid, scores, truth, peaks, duration=24.)
    """

    draw_timeline = staticmethod(draw_timeline)
    draw_moment_map = staticmethod(draw_moment_map)
    draw_score_curves = staticmethod(draw_score_curves)
    draw_tubes = staticmethod(draw_tubes)

    @master_only
    def add_datasample(
        self,
        name: str,
        video: str | Path | Sequence | None = None,
        data_sample: GroundingDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        top_n: int = 3,
        out_path: str | None = None,
        step: int = 0,
        curves=None,
    ) -> None:
        """Draw a sample's timeline, or its tubes, and give it to all back ends.

        Args:
            name (str): Name of the picture.
            video (str | Path | Sequence[np.ndarray] | None): A video file, or (not for tubes)
                frames as of `draw_timeline`, for thumbnails. Defaults to None: none.
            data_sample (GroundingDataSample): What to draw, as `draw_timeline` does, or of a
                `TubeDataSample` as `draw_tubes` does.
            draw_gt (bool): Whether to draw the ground truth. Defaults to True.
            draw_pred (bool): Whether to draw the predictions. Defaults to True.
            top_n (int): Predicted moments per sentence. Defaults to 3.
            out_path (str | None): Write this file instead; the back ends get nothing. Defaults to
                None.
            step (int): Step of training. Defaults to 0.
            curves (Tensor | np.ndarray | None): As of `draw_timeline`. Defaults to None.

        Raises:
            ValueError: If there is no ``data_sample``, or not one curve per sentence.
            VideoReadError: If the video cannot be read.
        """
        if data_sample is None:
            raise InputError(
                f'add_datasample({name!r}) needs a data_sample: without sentences '
                'there is nothing to draw'
            )
        if isinstance(data_sample, TubeDataSample):
            image = self.draw_tubes(data_sample, video, draw_gt=draw_gt, draw_pred=draw_pred)
        else:
            frames = sample_frames(video) if isinstance(video, str | Path) else video
            image = self.draw_timeline(
                data_sample, frames, top_n, draw_gt, draw_pred, curves=curves
            )
        self.set_image(image)  # what get_image and show give
        if out_path is None:
            self.add_image(name, image, step)
        else:
            self.save_image(image, out_path)

    @staticmethod
    def save_image(image: np.ndarray, path: str | Path) -> None:
        """Write an RGB image (H, W, 3) uint8; the suffix names the format, folders are made."""
        from matplotlib.image import imsave

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        imsave(path, np.ascontiguousarray(image))
