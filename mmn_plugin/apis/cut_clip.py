"""Parts of a video as files."""
import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from mmn_plugin.datasets.features import VideoReadError


def cut_clip(video: str | Path, start: float, end: float, path: str | Path) -> None:
    """Write a moment of a video as .mp4 (H.264, and AAC where there is sound).

    It is encoded anew, so that it begins and ends at the frames asked for, and not at key frames.

    Args:
        video (str | Path): The video.
        start (float): Seconds from its first frame.
        end (float): Seconds, > ``start``.
        path (str | Path): File to write; it appears when it is complete.

    Raises:
        VideoReadError: If the video cannot be read, or has no frame in that time.
    """
    import av

    path = Path(path)
    unfinished = path.with_name(path.name + '.part')
    try:
        with av.open(str(video)) as source, av.open(str(unfinished), 'w', format='mp4') as target:
            if not source.streams.video:
                raise VideoReadError(f'{video}: holds no video stream')
            origin = _origin(source.streams.video[0])
            sound = _sound_stream(source, target)
            if not _copy_pictures(source, target, origin + start, origin + end):
                raise VideoReadError(f'{video}: has no frame from {start:g} to {end:g} s')
            if sound is not None:
                _copy_sound(source, target, sound, origin + start, origin + end)
        os.replace(unfinished, path)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(f'{video}: cannot be cut ({error})') from error
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _origin(stream) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _sound_stream(source, target):
    """A stream for the sound, which must be there before the first picture is written."""
    if not source.streams.audio:
        return None
    kind = source.streams.audio[0]
    with suppress(ValueError):
        return target.add_stream('aac', rate=kind.rate)
    return None


def _copy_pictures(source, target, start: float, end: float) -> int:
    """Encode the frames of a time; returns their number."""
    import av

    stream = source.streams.video[0]
    rate = stream.average_rate or Fraction(25)
    output, count = None, 0
    for frame in _between(source, stream, start, end):
        picture = np.rot90(frame.to_ndarray(format='rgb24'),
                           round(getattr(frame, 'rotation', 0) / 90) % 4)
        picture = picture[:picture.shape[0] // 2 * 2, :picture.shape[1] // 2 * 2]  # for H.264
        if output is None:
            output = target.add_stream('libx264', rate=rate)
            output.height, output.width = picture.shape[:2]
            output.pix_fmt = 'yuv420p'
            output.options = dict(preset='veryfast', crf='18')
            output.codec_context.time_base = stream.time_base
            first = frame.pts
        encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
        encoded.pts, encoded.time_base = frame.pts - first, stream.time_base
        target.mux(output.encode(encoded.reformat(format='yuv420p')))
        count += 1
    if output is not None:
        target.mux(output.encode())
    return count


def _copy_sound(source, target, output, start: float, end: float) -> None:
    import av

    stream = source.streams.audio[0]
    resampler = av.AudioResampler(format='fltp', layout=stream.layout, rate=stream.rate)
    samples = 0
    for frame in _between(source, stream, start, end):
        frame.pts = None
        for part in resampler.resample(frame):
            part.pts, part.time_base = samples, Fraction(1, stream.rate)
            samples += part.samples
            target.mux(output.encode(part))
    target.mux(output.encode())


def _between(source, stream, start: float, end: float) -> Iterator:
    """Decoded frames that begin within a time."""
    source.seek(max(int((start - 0.5) / stream.time_base), stream.start_time or 0), stream=stream)
    for frame in source.decode(stream):
        if frame.time is None or frame.time < start - 1e-3:
            continue
        if frame.time >= end - 1e-3:
            return
        yield frame
