"""Videos as they come: whole ones, and ones with something wrong.

Every writer takes a path and writes `SECONDS` seconds of a picture whose upper left quarter is red
and whose brightness rises with time, unless its name says otherwise.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from helpers.counted_videos import FPS, add_tone, write

SECONDS, WIDTH, HEIGHT = 8, 96, 64


def picture(share: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame (H, W, 3) at a share of the video's length."""
    frame = np.full((height, width, 3), 40 + int(150 * share), np.uint8)
    frame[: height // 2, : width // 2] = (220, 30, 30)
    # something that does not compress away, so that a file has bytes to lose
    noise = np.random.default_rng(int(share * 1000)).integers(-20, 20, frame.shape)
    return (frame + noise).clip(0, 255).astype(np.uint8)


def even() -> Iterator[tuple[float, np.ndarray]]:
    """Time in seconds, and frame."""
    for i in range(SECONDS * FPS):
        yield i / FPS, picture(i / (SECONDS * FPS))


def encode(path: Path, frames=None, codec: str = 'libx264', sound: float = 0.0, **how) -> None:
    """Write frames with their times, and some seconds of a tone; ``how`` as `write` takes it."""
    times, pictures = zip(*(even() if frames is None else frames), strict=True)
    how = (dict(crf='23', g='10') if codec == 'libx264' else {}) | how
    voice = ('aac', sound) if sound else None
    write(path, times, codec, sound=voice, paint=pictures.__getitem__, **how)


def audio_only(path: Path) -> None:
    """Sound without pictures."""
    with av.open(str(path), 'w') as container:
        add_tone(container, container.add_stream('aac', rate=48000, layout='mono'), 3.0)


def audio_with_cover(path: Path) -> None:
    """Sound and the picture of a cover."""
    with av.open(str(path), 'w') as container:
        voice = container.add_stream('aac', rate=48000, layout='mono')
        cover = container.add_stream('mjpeg', rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(0.5), format='rgb24').reformat(format='yuvj420p')
        container.mux(cover.encode(frame))
        container.mux(cover.encode())
        add_tone(container, voice, 3.0)


def cut(path: Path, share: float, **how) -> None:
    """Keep only the first bytes."""
    encode(path, **how)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


def damage(path: Path, share: float) -> None:
    """Overwrite so much of the pictures, in stretches of 200 bytes."""
    encode(path, container=dict(movflags='+faststart'))
    content = bytearray(path.read_bytes())
    rng, begin = np.random.default_rng(0), content.find(b'mdat') + 2000
    for _ in range(max(1, int(share * (len(content) - begin) / 200))):
        at = int(rng.integers(begin, len(content) - 200))
        content[at : at + 200] = rng.bytes(200)
    path.write_bytes(content)


def at_times(times) -> list[tuple[float, np.ndarray]]:
    """Frames whose brightness is that of their time."""
    return [(time, picture(min(time / SECONDS, 1.0))) for time in times]


def uneven_times() -> list[float]:
    """2 seconds of 20 fps, a pause, and 5 fps to the end."""
    return [*np.arange(0, 2, 0.05), *np.arange(4, SECONDS, 0.2)]


# What is wrong -> (file name, writer)
VIDEOS: dict[str, tuple[str, Callable[[Path], None]]] = {
    'nothing is wrong': ('whole.mp4', encode),
    'empty file': ('empty.mp4', lambda path: path.write_bytes(b'')),
    'text called .mp4': ('text.mp4', lambda path: path.write_text('no video at all\n' * 99)),
    'sound only': ('sound.mp4', audio_only),
    'sound with a cover picture': ('cover.mp4', audio_with_cover),
    'MP4 cut off, its index (at the end) is lost': ('cut_index.mp4', lambda path: cut(path, 0.6)),
    'MP4 cut off, its index (at the beginning) is there': (
        'cut_pictures.mp4',
        lambda path: cut(path, 0.6, container=dict(movflags='+faststart')),
    ),
    'Matroska cut off': ('cut.mkv', lambda path: cut(path, 0.6)),
    'MPEG-TS cut off (says nowhere how long it is)': (
        'cut_ts.mpg',
        lambda path: cut(path, 0.6, form='mpegts'),
    ),
    '1 % of the bytes overwritten': ('scratched.mp4', lambda path: damage(path, 0.01)),
    '50 % of the bytes overwritten': ('ruined.mp4', lambda path: damage(path, 0.5)),
    'variable frame rate, with a pause of 2 s': (
        'uneven.mp4',
        lambda path: encode(path, at_times(uneven_times())),
    ),
    'phone held upright (rotated by 90 degrees)': (
        'upright.mp4',
        lambda path: encode(path, rotation=-90),
    ),
    'upside down (rotated by 180 degrees)': (
        'flipped.mp4',
        lambda path: encode(path, rotation=180),
    ),
    'sound is twice as long as the pictures (Matroska)': (
        'long_sound.mkv',
        lambda path: encode(path, sound=2.0 * SECONDS),
    ),
    'first picture at 5 s': (
        'late.mp4',
        lambda path: encode(path, [(time + 5, frame) for time, frame in even()]),
    ),
    'time stamps leap by 27 hours': (
        'leap.mkv',
        lambda path: encode(path, [(time + 1e5 * (time > 4), frame) for time, frame in even()]),
    ),
    'raw H.264 without time stamps': (
        'raw.m4v',  # encoded in milliseconds, which tell no rate
        lambda path: encode(
            path, [(time + 0.001 * (time > 4), frame) for time, frame in even()], form='h264'
        ),
    ),
    'one picture': ('one.mp4', lambda path: encode(path, [(0.0, picture(0.5))])),
    'odd size, 4:4:4, 10 bit': (
        'odd.mkv',
        lambda path: encode(
            path,
            [(time, frame[-37:, -51:]) for time, frame in even()],
            codec='ffv1',
            pixels='yuv444p10le',
        ),
    ),
}


def write_videos(folder: Path) -> Path:
    """Write all of them; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in VIDEOS.values():
        make(folder / name)
    return folder
