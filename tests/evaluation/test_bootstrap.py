"""The interval is an interval of the mean over groups, and holds the truth as often as it says."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.evaluation.bootstrap import _means, estimate

WIDEST = (-2.0, 2.0)
FEW = 400  # resamples; enough where exact widths do not matter
ROUNDING = 1e-9

scores = st.floats(-1, 1, allow_subnormal=False)
clustered = st.lists(st.tuples(scores, st.sampled_from("abcdefgh")), min_size=1, max_size=40)


def spread(values, groups, resamples=FEW):
    return estimate(values, groups, WIDEST, resamples)


@settings(deadline=None)
@given(clustered)
def test_the_interval_holds_the_mean_and_lies_within_the_values(pairs):
    values, groups = zip(*pairs, strict=True)
    found = spread(values, groups)
    low, high = found.ci95
    assert found.mean == pytest.approx(np.mean(values), abs=ROUNDING)
    assert low - ROUNDING <= found.mean <= high + ROUNDING
    if len(set(groups)) > 1:
        assert min(values) - ROUNDING <= low <= high <= max(values) + ROUNDING


@settings(deadline=None)
@given(scores, st.lists(st.sampled_from("abcd"), min_size=2, max_size=30).filter(lambda groups: len(set(groups)) > 1))
def test_identical_values_have_no_spread(value, groups):
    found = spread([value] * len(groups), groups)
    assert found.ci95 == pytest.approx((value, value), abs=ROUNDING)


def test_no_change_is_exactly_no_change():
    found = spread([0.0] * 9, list("aabbccdde"))
    assert (found.mean, found.ci95) == (0.0, (0.0, 0.0))


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=20))
def test_one_group_tells_nothing_of_the_spread(values):
    assert spread(values, ["a"] * len(values)).ci95 == WIDEST


@settings(deadline=None)
@given(clustered, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one, other = (spread(*zip(*order, strict=True)) for order in (pairs, shuffled))
    assert one.mean == pytest.approx(other.mean, abs=ROUNDING)
    assert one.ci95 == pytest.approx(other.ci95, abs=ROUNDING)


def test_a_group_counts_by_its_rows():
    """The mean is that of the rows: a group of nine outweighs a group of one."""
    found = spread([1.0] * 9 + [0.0], ["big"] * 9 + ["small"])
    assert found.mean == pytest.approx(0.9)
    assert found.ci95 == pytest.approx((0.0, 1.0))


def clustered_data(rng, groups=40):
    """Rows of groups that share most of their error; the true mean is 0.3."""
    sizes = rng.integers(1, 8, size=groups)
    effects = 0.3 + rng.normal(0, 0.2, size=groups)
    values = np.repeat(effects, sizes) + rng.normal(0, 0.1, size=sizes.sum())
    return values.tolist(), [f"g{n}" for n in np.repeat(np.arange(groups), sizes)]


def test_the_interval_holds_the_truth_as_often_as_it_says_and_one_over_rows_would_not():
    rng = np.random.default_rng(1)
    held, naive_held, widths, naive_widths = [], [], [], []
    for _ in range(200):
        values, groups = clustered_data(rng)
        low, high = spread(values, groups).ci95
        held.append(low <= 0.3 <= high)
        widths.append(high - low)
        low, high = spread(values, [f"row{n}" for n in range(len(values))]).ci95
        naive_held.append(low <= 0.3 <= high)
        naive_widths.append(high - low)
    assert 0.88 <= np.mean(held) <= 0.99
    assert np.mean(naive_held) < 0.8
    assert np.mean(naive_widths) < 0.7 * np.mean(widths)


@pytest.mark.parametrize("groups", [7, 10, 20])
def test_few_groups_are_covered_too(groups):
    """Plain percentiles hold the truth in 90 % only with 10 groups."""
    rng = np.random.default_rng(2)
    held = []
    for _ in range(400):
        low, high = spread(*clustered_data(rng, groups)).ci95
        held.append(low <= 0.3 <= high)
    assert 0.915 <= np.mean(held) <= 0.985


def test_blocks_give_the_same_means_as_one_piece_with_less_memory():
    sums, counts = np.arange(30_000.0), np.full(30_000, 3.0)
    resamples = 300  # two whole blocks of 133 and a rest
    tracemalloc.start()
    means = _means(sums, counts, resamples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    chosen = np.random.default_rng(20).integers(0, 30_000, size=(resamples, 30_000))
    assert means.tolist() == (sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)).tolist()
    assert len(means) == resamples
    # One piece would hold the numbers of the chosen groups and their sums: twice this.
    assert peak < 1.5 * chosen.nbytes
