"""How sentences that do not occur are told from those that do."""

import numpy as np
import pytest

from mmn_plugin.evaluation import auroc


def test_auroc_counts_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        present, absent = rng.integers(0, 6, 7) + 1.0, rng.integers(0, 6, 9) + 0.0
        pairs = present[:, None] - absent
        assert auroc(present, absent) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc([2, 3], [0, 1]) == 1
    with pytest.raises(ValueError, match='0 present and 1 absent'):
        auroc([], [1])
