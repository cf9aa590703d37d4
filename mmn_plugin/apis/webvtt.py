"""Moments as chapters of a video."""
import re
from collections.abc import Iterable


def webvtt(chapters: Iterable[tuple[float, float, str]]) -> str:
    """WebVTT text, as players take it for chapters or subtitles.

    Args:
        chapters (Iterable[tuple[float, float, str]]): Start and end in seconds, and text; in any
            order.
    """
    blocks = ['WEBVTT']
    for number, (start, end, text) in enumerate(sorted(chapters), 1):
        text = re.sub(r'\s+', ' ', text).strip()  # an empty line would end the cue
        text = text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
        blocks.append(f'{number}\n{time_stamp(start)} --> {time_stamp(end)}\n{text}')
    return '\n\n'.join(blocks) + '\n'


def time_stamp(seconds: float) -> str:
    """``hh:mm:ss.ttt``."""
    total = round(seconds * 1000)
    return (f'{total // 3_600_000:02}:{total // 60_000 % 60:02}:{total // 1000 % 60:02}.'
            f'{total % 1000:03}')
