"""Colours that people with any kind of colour vision tell apart (after Okabe and Ito, 2008)."""

TRUTH = '#E69F00'  # ground truth: orange
PREDICTION = '#0072B2'  # predictions: blue, fading down the ranks
TEXT = '#222222'
QUIET = '#666666'  # axis labels and what else should not catch the eye
GRID = '#D8D8D8'
TRACK = '#F2F2F2'  # the whole length of the video, behind a bar
ABSENT = '#D0D0D0'  # cells of a moment map that do not exist
HEAT = 'Blues'  # matplotlib's name of the heat map's colours, light to dark
RUNS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#000000')


def fade(colour: str, amount: float) -> str:
    """Mix a colour with white: 0 leaves it, 1 is white."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return '#' + ''.join(f'{round(c + (255 - c) * amount):02X}' for c in channels)
