"""How long a video is."""
from pathlib import Path

from mmn_plugin.datasets.features import VideoReadError


def video_duration(path: str | Path) -> float:
    """Seconds of a video, from its headers or, where they lack it, by reading all packets.

    Raises:
        VideoReadError: If the file is missing, damaged, or holds no pictures.
    """
    import av

    if not Path(path).is_file():
        raise VideoReadError(f'{path}: no such file')
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoReadError(f'{path}: holds no video stream')
            stream = container.streams.video[0]
            if stream.duration is not None:
                seconds = float(stream.duration * stream.time_base)
            elif container.duration is not None:
                seconds = container.duration / 1e6
            else:
                seconds = _last_moment(container, stream)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(f'{path}: cannot be read ({error})') from error
    if seconds <= 0:
        raise VideoReadError(f'{path}: holds no picture')
    return seconds


def _last_moment(container, stream) -> float:
    times = [(packet.pts, packet.pts + (packet.duration or 0))
             for packet in container.demux(stream) if packet.pts is not None]
    if not times:
        return 0.
    first, last = min(start for start, _ in times), max(end for _, end in times)
    return float((last - first) * stream.time_base)
