"""Pictures of answers."""
from collections.abc import Sequence
from pathlib import Path

from mmn_plugin.structures import GroundingDataSample


def draw_timelines(videos: Sequence, samples: Sequence[GroundingDataSample], show: bool = False,
                   out_dir: str | Path | None = None) -> list:
    """A timeline of each video, shown or written as ``<out_dir>/<video>_timeline.png``.

    Args:
        videos (Sequence): What `GroundingInferencer` takes; files have thumbnails.
        samples (Sequence[GroundingDataSample]): Its answers; with ``curves`` (s, K) in their
            predictions, the score over time is drawn too.
        show (bool): Whether to open windows. Defaults to False.
        out_dir (str | Path, optional): Defaults to None: nothing is written.

    Returns:
        list[np.ndarray]: (H, W, 3) uint8 RGB.
    """
    from mmn_plugin.visualization import GroundingVisualizer

    visualizer, pictures = GroundingVisualizer(), []
    for video, sample in zip(videos, samples, strict=True):
        source = video if isinstance(video, str | Path) and Path(video).is_file() else None
        path = None if out_dir is None else Path(out_dir) / f'{sample.video_id}_timeline.png'
        visualizer.add_datasample(sample.video_id, source, sample, out_path=path,
                                  curves=sample.pred_instances.get('curves'))
        pictures.append(visualizer.get_image())
        if show:
            visualizer.show(pictures[-1], win_name=sample.video_id)
    return pictures
