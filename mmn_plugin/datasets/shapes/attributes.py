"""What an event is made of: a colour, a shape and an action; and which triples are held out."""

import itertools

# RGB of each colour. All are saturated and brighter than any background.
COLOURS = {
    'red': (228, 62, 58),
    'yellow': (232, 208, 58),
    'green': (62, 196, 72),
    'cyan': (66, 208, 216),
    'blue': (76, 104, 236),
    'purple': (208, 76, 214),
}

SHAPES = ('circle', 'square', 'triangle', 'diamond', 'cross')

ACTIONS = ('left', 'right', 'up', 'down', 'grow', 'shrink', 'blink', 'loop')

# One in this many combinations is held out of training.
HELD_OUT_MODULUS = 8


def held_out_combinations(seed: int) -> set[tuple[str, str, str]]:
    """Combinations of (colour, shape, action) that no training video shows.

    The triples lie on a diagonal of the colour x shape x action box, so that training still shows
    every pair of attributes: what is new at test time is the combination alone.

    Args:
        seed (int): The corpus' seed; it chooses the diagonal.

    Returns:
        set[tuple[str, str, str]]: One eighth of the 240 triples.
    """
    indexed = itertools.product(enumerate(COLOURS), enumerate(SHAPES), enumerate(ACTIONS))
    return {
        (colour, shape, action)
        for (c, colour), (s, shape), (a, action) in indexed
        if (c + s + a) % HELD_OUT_MODULUS == seed % HELD_OUT_MODULUS
    }
