"""The visualizer that hooks and inferencers call."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmaction.registry import VISUALIZERS
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from mmn_plugin.errors import InputError
from mmn_plugin.features import sample_frames
from mmn_plugin.structures import GroundingDataSample, MomentGrid, TubeDataSample, tube_iou


@VISUALIZERS.register_module()
class GroundingVisualizer(Visualizer):
    """Draws timelines, moment maps and tubes, and hands them to any visualisation back end.

    Args:
        **kwargs: ``name``, ``vis_backends``, ``save_dir`` and so on, see
            `mmengine.visualization.Visualizer`.

    Examples:
        >>> visualizer = GroundingVisualizer(
        ...     vis_backends=[dict(type='LocalVisBackend')], save_dir='out')
        >>> visualizer.add_datasample('kitchen', 'kitchen.mp4', sample)  # out/vis_data/vis_image/
        >>> image = visualizer.draw_moment_map(grid, scores, truth, peaks, duration=24.)
    """

    def draw_timeline(
        self,
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
        from .timeline import Timeline, TimelineRow

        rows = TimelineRow.from_sample(sample, top_n, draw_gt, draw_pred, curves)
        left_out = len(rows) - max_sentences
        note = f'{left_out} more sentences are not shown' if left_out > 0 else ''
        return Timeline(rows[:max_sentences], sample.duration, sample.video_id, frames, note).draw()

    def draw_moment_map(
        self,
        grid: MomentGrid,
        values,
        ground_truth=None,
        peaks=None,
        *,
        duration: float,
        title: str = '',
        label: str = 'score',
        unit: str | None = None,
    ) -> np.ndarray:
        """Draw a value per moment as a heat map of start against end.

        Args:
            grid (MomentGrid): Which moments exist; other cells are grey.
            values (Tensor | np.ndarray): (P,), one per moment.
            ground_truth (Tensor | np.ndarray | None): (2,) or (k, 2) seconds; the cell with the
                largest IoU is framed. Defaults to None.
            peaks (Tensor | np.ndarray | None): (n, 2) seconds, best first; numbered. Defaults to
                None.
            duration (float): Seconds of the video.
            title (str): Heading, such as the sentence. Defaults to none.
            label (str): What the values are, beside the colour bar. Defaults to ``'score'``.
            unit (str, optional): What ``duration`` and all moments count, such as ``'boxes'``.
                Defaults to None: seconds.

        Returns:
            np.ndarray: (H, 664, 3) uint8, RGB.

        Raises:
            ValueError: If there is not one value per moment.
        """
        from .moment_map import MomentMapPicture

        return MomentMapPicture(
            grid, values, duration, ground_truth, peaks, title, label, unit
        ).draw()

    def draw_score_curves(self, sample: GroundingDataSample, curves=None) -> np.ndarray:
        """Draw scores over time without a map, a panel for each sentence.

        Args:
            sample (GroundingDataSample): The video, its sentences and, where known, ground truth.
            curves (Mapping[str, Tensor] | None): Name -> (s, N) scores of N clips of equal length.
                Defaults to None: ``pred_instances.curves``.

        Returns:
            np.ndarray: (H, 720, 3) uint8, RGB.

        Raises:
            ValueError: If there is no curve, or not one per sentence.
        """
        from .curves import ScoreCurvesPicture

        return ScoreCurvesPicture(sample, curves).draw()

    def draw_tubes(
        self,
        sample: TubeDataSample,
        video: str | Path | None = None,
        max_sentences: int = 8,
        count: int = 6,
        draw_gt: bool = True,
        draw_pred: bool = True,
    ) -> np.ndarray:
        """Draw frames with the true box (orange) and the answer's (blue), a row per sentence.

        Args:
            sample (TubeDataSample): The video, its sentences and their tubes.
            video (str | Path | None): The video file. Defaults to None: boxes on grey.
            max_sentences (int): Further ones are left out. Defaults to 8.
            count (int): Frames of a row, at even distances. Defaults to 6.
            draw_gt (bool): Whether to draw the ground truth, where known. Defaults to True.
            draw_pred (bool): Whether to draw the answers, where there are. Defaults to True.

        Returns:
            np.ndarray: (H, W, 3) uint8, RGB.

        Raises:
            VideoReadError: If the video cannot be read.
            TubeError: If it has no such frame as a box is in.
        """
        from .tubes import draw_tube_frames

        truth = sample.gt_instances.tubes if draw_gt and 'gt_instances' in sample else None
        found = sample.pred_instances if draw_pred and 'pred_instances' in sample else None
        rows = []
        for i, sentence in enumerate(sample.sentences[:max_sentences]):
            caption, tube, true = f'“{sentence}”', np.zeros((0, 5)), truth and truth[i]
            if found is not None:
                tube = found.tubes[i]
                caption += f'  score {float(found.scores[i]):.3f}' if len(tube) else '  no answer'
                if truth is not None:
                    caption += f', vIoU {tube_iou(tube, true)[0]:.2f}'
            rows.append(draw_tube_frames(video, caption, tube, true, count))
        width = max(row.shape[1] for row in rows)
        return np.concatenate(
            [
                np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
                for row in rows
            ]
        )

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
