"""Rows of features that cover so many seconds each, from the start of a video on."""

import math
from collections.abc import Sequence

import numpy as np

LACKING = 2  # rows that may be absent at the end, or too many there


def rows_of(duration: float, row_seconds: float) -> int:
    """Rows that cover a video of so many seconds, the last one perhaps in part."""
    return max(1, math.ceil(round(duration / row_seconds, 6)))


def row_problem(num_rows: int, duration: float, row_seconds: float) -> str | None:
    """What is wrong with a number of rows that is more than `LACKING` off; None: nothing.

    Args:
        num_rows (int): Rows of a video in one stream.
        duration (float): Its length in seconds, as annotated.
        row_seconds (float): Seconds that a row covers.
    """
    wanted = rows_of(duration, row_seconds)
    if abs(num_rows - wanted) <= LACKING:
        return None
    return (
        f'{num_rows} rows of {row_seconds:g} s cover {num_rows * row_seconds:g} s, but the video '
        f'is annotated with {duration:g} s, which is {wanted} rows (up to {LACKING} more or fewer '
        'are mended). Extract this video again at that rate, correct row_seconds of the dataset, '
        'or remove the video from the annotations'
    )


def fit_rows(
    streams: Sequence[np.ndarray], duration: float, row_seconds: float
) -> list[np.ndarray]:
    """Cut the streams of a video to the shortest, and to the video; fill what is absent at its end.

    Row k is of the seconds from ``k * row_seconds`` on, whatever the number of rows.

    Args:
        streams (Sequence[np.ndarray]): (T_k, D_k) each, of numbers of rows that are no
            `row_problem`.
        duration (float): Seconds of the video.
        row_seconds (float): Seconds that a row covers.

    Returns:
        list[np.ndarray]: (`rows_of`, D_k) each; the last row stands for those that are absent.
    """
    wanted = rows_of(duration, row_seconds)
    count = min(wanted, *map(len, streams))
    places = np.arange(wanted).clip(max=count - 1)
    return [stream[places] for stream in streams]
