"""The visualizer that hooks and inferencers call."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from mmaction.registry import VISUALIZERS
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from mmn_plugin.errors import InputError
from mmn_plugin.features import sample_frames
from mmn_plugin.files import OutputFolder, input_of
from mmn_plugin.structures import GroundingDataSample, TubeDataSample

from .curves import draw_score_curves
from .hits import draw_hits
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
    draw_hits = staticmethod(draw_hits)

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
            raise InputError(f'add_datasample({name!r}) has no data_sample to draw')
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


def timeline_files(
    folder: OutputFolder, videos: Sequence, names: Sequence[str], keep: bool = True
) -> dict[str, str]:
    """Names of the videos' pictures in a folder, and what each is made of.

    Args:
        folder (OutputFolder): The folder.
        videos (Sequence): What `GroundingInferencer` takes; each gets a picture of its own.
        names (Sequence[str]): Their names, ``<name>_timeline.png`` where no other video has it.
        keep (bool): As of `OutputFolder.names_of`. Defaults to True.
    """
    seen, sources = Counter(), []
    for video, name in zip(videos, names, strict=True):
        seen[key := (input_of(video), name)] += 1
        sources.append(key[0] if seen[key] == 1 else f'{key[0]} ({seen[key]})')
    found = folder.names_of(zip(sources, names, strict=True), keep)
    return {f'{name}_timeline.png': source for name, source in zip(found, sources, strict=True)}


def draw_timelines(
    videos: Sequence,
    samples: Sequence[GroundingDataSample],
    show: bool = False,
    out_dir: str | Path | None = None,
) -> list:
    """A timeline of each video, shown or written as ``<out_dir>/<video>_timeline.png``.

    What was written is listed in ``<out_dir>/.mmn_outputs.json``, and nothing else is replaced; of
    several videos of one name the second one's is ``<video>-2_timeline.png``.

    Args:
        videos (Sequence): What `GroundingInferencer` takes; files have thumbnails.
        samples (Sequence[GroundingDataSample]): Its answers; with ``curves`` (s, K) in their
            predictions, the score over time is drawn too.
        show (bool): Whether to open windows. Defaults to False.
        out_dir (str | Path, optional): Defaults to None: nothing is written.

    Returns:
        list[np.ndarray]: (H, W, 3) uint8 RGB.

    Raises:
        OutputError: If ``out_dir`` cannot be written into, or holds other files of these names.
    """
    visualizer, pictures = GroundingVisualizer(), []
    paths, writing = [None] * len(samples), nullcontext()
    if out_dir is not None:
        folder = OutputFolder(out_dir)
        files = timeline_files(folder, videos, [sample.video_id for sample in samples])
        paths, writing = [folder.path / file for file in files], folder.writing(files)
    with writing:
        for video, sample, path in zip(videos, samples, paths, strict=True):
            source = video if isinstance(video, str | Path) and Path(video).is_file() else None
            visualizer.add_datasample(
                sample.video_id,
                source,
                sample,
                out_path=path,
                curves=sample.pred_instances.get('curves'),
            )
            pictures.append(visualizer.get_image())
            if show:
                visualizer.show(pictures[-1], win_name=sample.video_id)
    return pictures
