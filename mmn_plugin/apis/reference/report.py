"""Comparisons of one golden file."""

from dataclasses import dataclass, field

import numpy as np
import torch

from .row import Row


@dataclass
class Report:
    """Comparisons of one golden file."""

    rows: list[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing failed."""
        compared = any(not row.skipped for row in self.rows)
        return compared and all(row.passed for row in self.rows)

    def compare(
        self,
        quantity: str,
        ours: dict,
        reference: dict,
        bound: float,
        absolute: dict[str, float] | None = None,
    ) -> None:
        """Add a row for one quantity made of several arrays.

        Without a reference the quantity is skipped, and the row says so. Each array's difference is
        taken relative to that array's largest reference value.

        Args:
            quantity (str): Name of the row.
            ours (dict[str, Array]): Our values; tensors may be on any device.
            reference (dict[str, Array]): Reference values under the same keys.
            bound (float): Bound on the relative difference; 0 asks for equality.
            absolute (dict[str, float], optional): Keys whose reference is zero in exact
                arithmetic, with the scale to divide their difference by instead.
        """
        if not reference:
            self.skip(quantity)
            return
        if ours.keys() != reference.keys():
            odd = ', '.join(sorted(map(str, ours.keys() ^ reference.keys()))[:5])
            self.fail(quantity, f'on one side only: {odd}')
            return
        worst, max_abs, worst_key = -1.0, 0.0, ''
        for key, expected in reference.items():
            value, expected = _array(ours[key]), np.asarray(expected)
            if value.shape != expected.shape:
                self.fail(quantity, f'{key}: shape {value.shape}, reference {expected.shape}')
                return
            difference = _largest_difference(value, expected)
            scale = (absolute or {}).get(key) or np.nanmax(np.abs(expected), initial=0) or 1.0
            max_abs = max(max_abs, difference)
            if difference / scale > worst:
                worst, worst_key = difference / scale, key
        passed = worst <= bound
        count = f' ({len(reference)})' if len(reference) > 1 else ''
        note = f'worst: {worst_key}' if len(reference) > 1 and worst > 0 else ''
        self.rows.append(Row(quantity + count, max_abs, worst, bound, passed, note))

    def skip(self, quantity: str) -> None:
        """Add a row for a group of which the file holds nothing."""
        nothing = float('nan')
        self.rows.append(
            Row(quantity, nothing, nothing, nothing, True, 'not in this file', skipped=True)
        )

    def fail(self, quantity: str, why: str) -> None:
        """Add a row for a quantity that cannot even be compared."""
        self.rows.append(Row(quantity, float('inf'), float('inf'), 0.0, False, why))


def _array(value) -> np.ndarray:
    return np.asarray(value.detach().cpu() if torch.is_tensor(value) else value)


def _largest_difference(value: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite where only one side is NaN."""
    value, expected = value.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isnan(value), np.isnan(expected)):
        return float('inf')
    difference = np.abs(value - expected)
    return float(np.nanmax(difference, initial=0.0))
