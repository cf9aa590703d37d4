"""Seconds as people read them."""

import math


def format_time(seconds: float, duration: float) -> str:
    """Write a time, in a form that suits the video's length.

    Args:
        seconds (float): The time.
        duration (float): Seconds of the video: up to two minutes are told in seconds, up to an
            hour in ``min:s``, longer ones in ``h:min:s``.

    Returns:
        str: Such as ``7.3``, ``4:07`` or ``1:02:45``.
    """
    if duration <= 120:
        return f'{seconds:.1f}'
    minutes, rest = divmod(round(seconds), 60)
    if duration <= 3600:
        return f'{minutes}:{rest:02d}'
    return f'{minutes // 60}:{minutes % 60:02d}:{rest:02d}'


def time_unit(duration: float) -> str:
    """The unit that :func:`format_time` uses, for an axis."""
    return 's' if duration <= 120 else 'min:s' if duration <= 3600 else 'h:min:s'


def time_ticks(duration: float, wanted: int = 8) -> list[float]:
    """Round times from 0 to the duration, about ``wanted`` of them."""
    steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]
    step = next((s for s in steps if duration / s <= wanted), None)
    step = step or 3600 * math.ceil(duration / 3600 / wanted)
    return [i * step for i in range(math.floor(duration / step + 1e-6) + 1)]


def tick_text(seconds: float, duration: float) -> str:
    """A tick's label: as :func:`format_time`, without a needless ``.0``."""
    return format_time(seconds, duration).removesuffix('.0')
