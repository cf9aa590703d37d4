"""Outcome of comparing one quantity with published figures."""

from dataclasses import dataclass


@dataclass
class Row:
    """Outcome of comparing one quantity.

    Attributes:
        quantity (str): What was compared, and how many values or parameters of it.
        max_abs (float): Largest absolute difference.
        max_rel (float): Largest difference relative to the largest reference value.
        bound (float): Bound on ``max_rel``; 0 asks for equality.
        passed (bool): Verdict; True of a skipped quantity.
        note (str): What a reader should know, such as the worst parameter or the number of ties.
        skipped (bool): Whether the file does not hold the quantity, so that nothing was compared.
    """

    quantity: str
    max_abs: float
    max_rel: float
    bound: float
    passed: bool
    note: str = ''
    skipped: bool = False
