"""95 % intervals by the cluster bootstrap: whole groups are resampled, since rows of one fact rise and fall together.

Sources: Miller 2024, Adding Error Bars to Evals, arXiv 2411.00640 (clustered, paired); Hesterberg 2014, What Teachers
Should Know about the Bootstrap, arXiv 1411.5279 (expanded percentiles: plain ones are too narrow for few groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit  # of scipy.stats the import alone takes a second

from flows.evaluation.results import Estimate

RESAMPLES = 10_000


def estimate(
    values: Sequence[float], groups: Sequence[str], widest: tuple[float, float], resamples: int = RESAMPLES
) -> Estimate:
    """The mean of `values` `(rows,)` and its 95 % interval over resampled groups.

    For a paired comparison give the differences. With fewer than two groups nothing is known about the spread: the
    interval is `widest`, the whole range that the mean could have.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    mean = float(numbers.mean())
    if len(names) < 2:
        return Estimate(mean=mean, ci95=widest)
    sums = np.bincount(index, weights=numbers)
    counts = np.bincount(index).astype(np.float64)
    tail = expanded_tail(len(names))
    low, high = np.quantile(_means(sums, counts, resamples), [tail, 1 - tail])
    return Estimate(mean=mean, ci95=(float(low), float(high)))


def expanded_tail(groups: int) -> float:
    """The share to cut off at each end, below 0.025 for few groups, so that 95 % are covered (two groups or more)."""
    stretched = np.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, 0.975)
    return float(ndtr(-stretched))


def _means(sums: NDArray[Any], counts: NDArray[Any], resamples: int) -> NDArray[np.float64]:
    """Row means of resampled groups; in blocks, so that memory does not grow with the corpus."""
    rng = np.random.default_rng(20)
    block = max(1, 4_000_000 // len(sums))
    means = []
    for start in range(0, resamples, block):
        chosen = rng.integers(0, len(sums), size=(min(block, resamples - start), len(sums)))
        means.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
    return np.concatenate(means)
