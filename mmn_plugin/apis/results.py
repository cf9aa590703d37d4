"""What answers become: dicts, and timelines in a folder."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mmn_plugin.errors import InputError
from mmn_plugin.files import OutputFolder, input_of
from mmn_plugin.structures import GroundingDataSample

from .video_input import one_each, video_name


def result_dicts(
    sample: GroundingDataSample, presence_threshold: float | None, drop_absent: bool = False
) -> list[dict]:
    """What `GroundingInferencer.ground` returns.

    Args:
        sample (GroundingDataSample): With ``moments``, ``scores`` and ``presence``.
        presence_threshold (float | None): Presence from which a sentence occurs.
        drop_absent (bool): No moments where it does not. Defaults to False.

    Raises:
        ValueError: If ``drop_absent`` is asked for and no threshold is known.
    """
    if drop_absent and presence_threshold is None:
        raise InputError(
            'drop_absent needs a presence_threshold, and the checkpoint carries none: '
            'give one, or let tools/analysis_tools/calibrate_presence.py measure it'
        )
    found, results = sample.pred_instances, []
    for i, sentence in enumerate(sample.sentences):
        there = ~found.scores[i].isnan()  # (n,)
        result = dict(
            sentence=sentence,
            moments=found.moments[i][there].tolist(),
            scores=found.scores[i][there].tolist(),
        )
        if presence_threshold is not None:
            result['presence'] = float(found.presence[i])
            result['present'] = result['presence'] >= presence_threshold
            if drop_absent and not result['present']:
                result.update(moments=[], scores=[])
        results.append(result)
    return results


def timeline_files(folder: OutputFolder, videos: Sequence, names: Sequence[str]) -> dict[str, str]:
    """Names of the videos' pictures in a folder, and what each is made of.

    Args:
        folder (OutputFolder): The folder.
        videos (Sequence): What `GroundingInferencer` takes; each gets a picture of its own.
        names (Sequence[str]): Their names, ``<name>_timeline.png`` where no other video has it.
    """
    seen, sources = Counter(), []
    for video, name in zip(videos, names, strict=True):
        source = input_of(video)
        seen[source, name] += 1
        again = seen[source, name]
        sources.append(source if again == 1 else f'{source} ({again})')
    found = folder.names_of(zip(sources, names, strict=True))
    return {f'{name}_timeline.png': source for name, source in zip(found, sources, strict=True)}


def claim_timelines(out_dir: str | Path, videos: Sequence, names=None) -> None:
    """Make sure, before the work, that `draw_timelines` can write its files.

    Args:
        out_dir (str | Path): The folder.
        videos (Sequence): What `GroundingInferencer` takes.
        names (str | Sequence[str | None], optional): Of one or of all videos. Defaults to None: the
            videos' own.

    Raises:
        OutputError: As of `draw_timelines`.
    """
    given = one_each(names, len(videos))
    if len(given) == len(videos):  # else `preprocess` refuses them
        folder, names = OutputFolder(out_dir), map(video_name, videos)
        folder.claim(
            timeline_files(
                folder, videos, [name or own for name, own in zip(given, names, strict=True)]
            )
        )


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
    from mmn_plugin.visualization import GroundingVisualizer

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
