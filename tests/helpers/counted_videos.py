"""One video in many containers, with what containers do to it.

A decoded picture tells its number by the shades of its halves. Every writer takes a path and writes
`COUNT` pictures, `FPS` a second, unless it says otherwise.
"""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

COUNT, FPS = 80, 10
LENGTH = COUNT / FPS  # seconds
MILLISECOND = Fraction(1, 1000)
TIMES = np.arange(COUNT) / FPS


STEP = 24  # of the shades


def picture(number: int) -> np.ndarray:
    """(48, 64, 3) uint8."""
    halves = np.repeat(np.divmod(number, 9), 32)  # (64,)
    return np.broadcast_to(20 + STEP * halves[:, None], (48, 64, 3)).astype(np.uint8)


def numbers(pictures) -> np.ndarray:
    """Which pictures these (n, H, W, 3) are; those of a rotated video lie on their side."""
    pictures = np.asarray(pictures, np.float64)
    if pictures.shape[1] > pictures.shape[2]:
        pictures = np.rot90(pictures, -1, (1, 2))
    width = pictures.shape[2]
    halves = (pictures[:, 8:-8, 4 : width // 2 - 4], pictures[:, 8:-8, width // 2 + 4 : -4])
    first, second = (np.rint((half.mean((1, 2, 3)) - 20) / STEP).astype(int) for half in halves)
    return 9 * first + second


def write(
    path: Path,
    times=TIMES,
    codec: str = 'libx264',
    pixels: str = 'yuv420p',
    form: str | None = None,
    sound: tuple[str, float] | None = None,
    text: float = 0.0,
    rotation: int = 0,
    container: dict | None = None,
    paint: Callable[[int], np.ndarray] = picture,
    **options: str,
) -> None:
    """Write a picture at each time.

    Args:
        path (Path): The file.
        times (Sequence[float]): Seconds in the file's own time.
        codec (str): Of the pictures.
        pixels (str): Format of the pictures' pixels.
        form (str, optional): Container. Defaults to None: by the file's name.
        sound (tuple[str, float], optional): Codec and seconds of a tone from 0 s on, which reaches
            an amplitude of 1 after 20 s.
        text (float): Second at which the only subtitle ends; 0: there is none.
        rotation (int): Degrees, counter-clockwise, that a player turns the pictures by.
        container (dict, optional): Options of the container.
        paint (Callable): From a number to its picture, (H, W, 3) uint8.
        **options: Of the codec.
    """
    with av.open(str(path), 'w', format=form, options=container or {}) as file:
        stream = file.add_stream(codec, rate=FPS)
        stream.height, stream.width = paint(0).shape[:2]
        stream.pix_fmt, stream.thread_count = pixels, 1
        own = dict(libx264=dict(crf='8'), ffv1={}).get(codec, dict(qmin='1', b='2M'))
        stream.options = dict(own, **options)
        if codec != 'mpeg4' and len(set(np.diff(times).round(6))) > 1:
            stream.codec_context.time_base = MILLISECOND
        if rotation:
            stream.set_display_rotation(rotation)
        voice = file.add_stream(sound[0], rate=48000, layout='mono') if sound else None
        subtitle = file.add_stream('subrip') if text else None
        if subtitle:
            subtitle.codec_context.subtitle_header, subtitle.time_base = b'', MILLISECOND
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(paint(number), format='rgb24')
            frame = frame.reformat(format=pixels)
            base = stream.codec_context.time_base or Fraction(1, FPS)
            frame.pts, frame.time_base = round(time / base), base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if voice:
            add_tone(file, voice, sound[1])
        if subtitle:
            _write_subtitle(file, subtitle, text)


def add_tone(file, stream, seconds: float) -> None:
    """Write so much of a tone, louder and louder."""
    form = 's16' if stream.codec_context.format.name.startswith('s16') else 'fltp'
    time = np.arange(round(seconds * 48000)) / 48000
    samples = np.sin(2400 * time) * time / 20
    samples = (samples * 32000).astype(np.int16) if form == 's16' else samples.astype(np.float32)
    for first in range(0, len(samples), 960):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + 960], form, 'mono')
        frame.sample_rate, frame.pts, frame.time_base = 48000, first, Fraction(1, 48000)
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def _write_subtitle(file, stream, end: float) -> None:
    packet = av.Packet(b'a caption')
    packet.stream, packet.time_base = stream, MILLISECOND
    packet.pts = packet.dts = round(1000 * end) - 500
    packet.duration = 500
    file.mux(packet)


def copy_without(path: Path, source: Path, count: int) -> None:
    """Leave the first packets out, as where a recording begins in the middle."""
    copy(path, source, lambda number, content: content if number >= count else None)


def copy(path: Path, source: Path, change: Callable[[int, bytes], bytes | None]) -> None:
    """Copy packets, with what is made of each by its number; None leaves it out."""
    with av.open(str(source)) as old, av.open(str(path), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            content = change(number, bytes(packet)) if packet.size else None
            if content is not None:
                copied = av.Packet(content)
                copied.pts, copied.dts, copied.duration = packet.pts, packet.dts, packet.duration
                copied.time_base, copied.is_keyframe = packet.time_base, packet.is_keyframe
                copied.stream = stream
                new.mux(copied)


def hide(path: Path, *which: int) -> None:
    """VP8 some of whose pictures are never shown: others are made from them."""
    write(path.with_name('whole.webm'), codec='libvpx')
    copy(
        path,
        path.with_name('whole.webm'),
        lambda number, content: (
            bytes([content[0] & (~16 if number in which else 255)]) + content[1:]
        ),
    )


def spoil(path: Path, *which: int, **how) -> None:
    """Key frames alone, some of which cannot be decoded."""
    write(path.with_name(f'whole_{path.name}'), g='1', **how)
    copy(
        path,
        path.with_name(f'whole_{path.name}'),
        lambda number, content: bytes(len(content)) if number in which else content,
    )


def lie_avi(path: Path, count: int, **how) -> None:
    """An AVI whose header says another number of pictures."""
    write(path, **how)
    content = bytearray(path.read_bytes())
    for chunk, place in ((b'avih', 24), (b'strh', 40)):
        at = content.find(chunk) + place
        content[at : at + 4] = struct.pack('<I', count)
    path.write_bytes(content)


def lie_matroska(path: Path, seconds: float, **how) -> None:
    """A Matroska file whose header, with no word on its streams, says another length."""
    write(path, **how)
    content = bytearray(path.read_bytes())
    at = content.find(b'\x44\x89\x88') + 3
    content[at : at + 8] = struct.pack('>d', 1000 * seconds)
    path.write_bytes(content.replace(b'DURATION', b'DURATIO_'))
