"""Types of command-line arguments."""

import argparse


def whole_number(text: str) -> int:
    """A number of things, 0 or more, as ``type=`` of an argument.

    Raises:
        argparse.ArgumentTypeError: If it is none; argparse names the argument.
    """
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of 0 or more')
    return value
