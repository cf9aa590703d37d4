"""What an inferencer takes: videos in many forms, and sentences."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import torch

from mmn_plugin.datasets import open_feature_store
from mmn_plugin.datasets.feature_store import require_written, tensor_to_array
from mmn_plugin.errors import InputError
from mmn_plugin.features import Rewriter, VideoWriter, probe_video
from mmn_plugin.features.feature_file import entry_fingerprint
from mmn_plugin.features.rewriting import problem_of
from mmn_plugin.files import printable


@contextmanager
def file_of_stream(stream) -> Iterator[Path]:
    """Copy of an open file for as long as the context lasts; memory does not grow with it.

    It is read from its beginning where it can be rewound; an `InputError` if it gives text, or is
    empty.
    """
    name = getattr(stream, 'name', None)
    name = name if isinstance(name, str) else ''
    with tempfile.TemporaryDirectory(prefix='mmn_video_') as folder:
        path = Path(folder) / f'video{Path(name).suffix}'
        if getattr(stream, 'seekable', lambda: False)():
            stream.seek(0)
        with path.open('wb') as copy:
            try:
                shutil.copyfileobj(stream, copy, 1 << 20)
            except TypeError:
                raise InputError(
                    f"the open file {name} gives text: open videos in binary mode, open(path, 'rb')"
                ) from None
        if not path.stat().st_size:
            raise InputError(f'the open file {name} is empty')
        yield path


@contextmanager
def file_of_frames(frames: np.ndarray, fps: float) -> Iterator[Path]:
    """A lossless video of frames for as long as the context lasts.

    Raises:
        ValueError: If the frames are not (T, H, W, 3) uint8, RGB.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        given = f'frames of shape {frames.shape} and type {frames.dtype}'
        raise InputError(f'{given}: expected (T, H, W, 3) uint8, RGB')
    with tempfile.TemporaryDirectory(prefix='mmn_video_') as folder:
        path = Path(folder) / 'video.avi'
        with VideoWriter(path, fps, form='avi', codec='ffv1', pixels='bgr0') as video:
            for picture in frames:
                video.add(picture)
        yield path


def as_videos(video) -> list | None:
    """A list, tuple, or array of paths as a list; None where it is one video."""
    if isinstance(video, np.ndarray) and video.ndim and video.dtype.kind in 'OSU':
        return video.ravel().tolist()
    return list(video) if isinstance(video, list | tuple) else None


def plain_video(video):
    """A video as its path (str or Path), or as an array; what is neither stays as it is.

    Paths may be bytes, `os.PathLike` or an array of one; tensors of any kind.
    """
    if isinstance(video, np.ndarray) and not video.ndim:
        video = video.item()
    if isinstance(video, bytes) or (isinstance(video, os.PathLike) and not isinstance(video, Path)):
        return os.fsdecode(video)
    return tensor_to_array(video) if torch.is_tensor(video) else video


def one_each(value, count: int) -> list:
    """A value for each of several videos: the same, or those of a list, tuple, array or tensor."""
    if isinstance(value, np.ndarray | torch.Tensor):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else [value] * count


def positive_number(value, message: str) -> float:
    """A rate or a duration as float, from a number of Python, NumPy or PyTorch, or text such as
    ``'30000/1001'``; an `InputError` with the message where it is not one finite number above 0.
    """
    try:
        if isinstance(value, np.ndarray | np.generic | torch.Tensor):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode()
        number = float(Fraction(value) if isinstance(value, str) else value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        number = np.nan
    if isinstance(value, bool) or not 0 < number < np.inf:
        raise InputError(message)
    return number


@dataclass
class VideoFeatures:
    """Features of one video.

    Attributes:
        video_id (str): Its name.
        values (np.ndarray): (T, D) float32.
        duration (float): Seconds.
        row_seconds (float): Seconds from one row to the next. Defaults to equal parts of the video.
        fingerprint (dict | None): What made them, where an HDF5 file tells it.

    Raises:
        ValueError: If the values are no features, or their duration is missing.
    """

    video_id: str
    values: np.ndarray
    duration: float | None
    row_seconds: float | None = None
    fingerprint: dict | None = None

    def __post_init__(self) -> None:
        values, name = self.values, self.video_id
        try:
            self.values = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(
                f'{name}: a {type(values).__name__} is neither the path of a '
                'video, nor an open file, nor an array of numbers'
            ) from None
        shape = self.values.shape
        if len(shape) != 2 or 0 in shape:
            raise InputError(
                f'the features of video {name} have the shape {shape}; '
                'expected (T, D), a row per step of time (frames are (T, H, W, 3))'
            )
        if not np.isfinite(self.values).all():
            raise InputError(f'the features of video {name} hold NaN or infinity')
        if self.duration is None:
            raise InputError(
                f'features alone do not tell how long video {name} is: give '
                'duration=<seconds above 0>'
            )
        self.duration = float(self.duration)
        self.row_seconds = self.row_seconds or self.duration / len(self.values)

    @classmethod
    def of(
        cls,
        video,
        extractor: Callable,
        duration: float | None = None,
        video_id: str | None = None,
        fps: float | None = None,
    ) -> 'VideoFeatures':
        """Features of a video file, an open file, frames, or features.

        Args:
            video (str | bytes | PathLike | IO[bytes] | np.ndarray | Tensor | h5py.Dataset): Video
                file; ``FILE.h5::ENTRY``; open file; frames (T, H, W, 3) uint8 RGB; features (T, D).
            extractor (Callable): Returns the feature extractor; called where one is needed.
            duration (float, optional): Seconds, see `positive_number`. Defaults to None: as the
                file says.
            video_id (str, optional): Name. Defaults to None: the file's.
            fps (float, optional): Frames per second of an array of frames, likewise. Defaults to
                None.

        Raises:
            VideoReadError: If a video cannot be read.
            ValueError: If features or frames are of no use, or their duration is missing.
        """
        video = plain_video(video)
        video_id = video_id or video_name(video)
        if duration is not None:
            wrong = f'duration={duration!r}: give the seconds of the video, above 0'
            duration = positive_number(duration, wrong)
        if is_entry(video):
            return cls(video_id, *_stored(video, duration))
        if isinstance(video, h5py.Dataset):
            require_written(video, f'{video.file.filename}: entry {video.name!r}')
            return cls(video_id, *_entry(video, video[()], duration))
        if isinstance(video, np.ndarray) and video.ndim == 4:
            wrong = (
                'an array of frames does not tell its rate: give fps=<frames per second above 0>'
            )
            fps = positive_number(fps, f'{wrong}, not {fps!r}')
            source, duration = file_of_frames(video, fps), duration or len(video) / fps
        elif hasattr(video, 'read'):
            source = file_of_stream(video)
        elif isinstance(video, str | Path):
            source = nullcontext(Path(video))
        else:
            return cls(video_id, video, duration)
        with source as path:
            duration, used = duration or probe_video(path).duration, extractor()
            return cls(video_id, used(path), duration, used.stride / used.fps)


def _stored(name: str, duration: float | None) -> tuple:
    """As `_entry`, of ``FILE.h5::ENTRY``, or of a folder that the datasets read."""
    path, entry = split_entry(name)
    group, _, key = entry.partition('/')
    store = open_feature_store(path, key or None)
    values = store.read(group)
    store.close()
    if not Path(path).is_file():
        return values, duration
    with h5py.File(path) as file:
        return _entry(file[entry], values, duration)


def _entry(entry: h5py.Dataset, values: np.ndarray, duration: float | None) -> tuple:
    """Values, seconds, seconds from one to the next, and fingerprint of an entry."""
    return values, duration or _entry_duration(entry), None, entry_fingerprint(entry)


def video_name(video) -> str:
    """Name of whatever `VideoFeatures.of` takes, where none is given."""
    if is_entry(video):
        return split_entry(video)[1].partition('/')[0]
    if isinstance(video, h5py.Dataset):
        return video.name.strip('/')
    if hasattr(video, 'read'):
        name = getattr(video, 'name', None)
        return printable(Path(name).stem) if isinstance(name, str) else 'file'
    return printable(Path(video).stem) if isinstance(video, str | Path) else 'array'


def is_entry(video) -> bool:
    """Whether this is ``FILE.h5::ENTRY``, features rather than a file."""
    return isinstance(video, str) and '::' in video and not Path(video).is_file()


def _entry_duration(entry: h5py.Dataset) -> float | None:
    """Seconds of an entry whose attributes tell its stride (frames) and frame rate."""
    stride, fps = entry.attrs.get('stride'), entry.attrs.get('fps')
    if stride is None or fps is None:
        return None
    wrong = (
        f'{entry.file.filename}: entry {entry.name!r} has stride={stride!r} and fps={fps!r}; '
        'both must be numbers above 0'
    )
    return len(entry) * positive_number(stride, wrong) / positive_number(fps, wrong)


def split_entry(name: str) -> tuple[str, str]:
    """File (or folder) and entry of ``FILE::ENTRY``; both may have ``::`` in their names."""
    parts = name.split('::')
    paths = ['::'.join(parts[:place]) for place in range(1, len(parts))]
    path = next((path for path in paths if Path(path).exists()), paths[0])
    return path, name[len(path) + 2 :]


def check_sentences(
    model, sentences: str | Sequence[str], rewrite: Rewriter | None = None
) -> list[str]:
    """One or more sentences as a list, as they were given.

    Args:
        model (nn.Module): A localizer.
        sentences (str | Sequence[str]): What to look for.
        rewrite (Rewriter, optional): Makes of each what the model will see. Defaults to None.

    Raises:
        ValueError: If there is none, or one is empty, holds no word that the model knows, or cannot
            be rewritten.
    """
    if isinstance(sentences, np.ndarray):
        sentences = sentences.tolist()
    try:
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    except TypeError:
        raise InputError(f'sentences={sentences!r}: give a sentence, or a list') from None
    if not sentences:
        raise InputError('no sentence was given; give at least one')
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise InputError(f'the sentence {sentence!r} is no text (str)')
        if not sentence.strip():
            raise InputError(f'the sentence {sentence!r} is empty; say what to look for')
    texts = [*map(rewrite, sentences)] if rewrite else sentences
    found = zip(sentences, texts, model.inspect_sentences(texts), strict=True)
    for sentence, text, (_, problem) in found:
        if problem := problem_of(sentence, text, problem):
            raise InputError(
                f'the sentence {sentence!r} {problem}; the model cannot know what it means. Use '
                'words that it was trained with'
            )
    return sentences


def check_sentence_lists(
    model, sentences, num_videos: int | None, rewrite: Rewriter | None = None
) -> list[list[str]]:
    """Sentences of each video: the same for all, or a list, tuple or array of them for each.

    Raises:
        ValueError: As of `check_sentences`, or if there is not one list per video.
    """
    if isinstance(sentences, np.ndarray):
        sentences = sentences.tolist()
    if num_videos is None:
        return [check_sentences(model, sentences, rewrite)]
    nested = not isinstance(sentences, str) and any(
        isinstance(entry, list | tuple | np.ndarray) for entry in sentences
    )
    if not nested:
        return [check_sentences(model, sentences, rewrite)] * num_videos
    if len(sentences) != num_videos:
        raise InputError(f'{num_videos} videos, but {len(sentences)} lists of sentences')
    return [check_sentences(model, entry, rewrite) for entry in sentences]
