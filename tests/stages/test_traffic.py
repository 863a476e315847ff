"""What the front counted decides whether a candidate stands its traffic."""

import pytest

from flows.serving.front.traffic import ServerStats
from flows.serving.promotion_options import PromotionOptions
from flows.stages.traffic import fails_more, since, steps, words

PLANS = {"replace": [], "blue-green": [100], "canary": [5, 25]}


def stats(requests, errors=0, sessions=0):
    return ServerStats(requests, errors, sessions, first_byte_ms=12, total_ms=40)


def test_each_strategy_has_its_steps():
    found = [
        steps(PromotionOptions(strategy=name, canary_steps=[5, 25])) for name in ("replace", "blue-green", "canary")
    ]
    assert found == [[], [100], [5, 25]]


@pytest.mark.parametrize(
    ("candidate", "current", "more"),
    [
        (stats(0), stats(50), False),
        (stats(10), stats(90), False),
        (stats(10, 1), stats(90), True),
        (stats(10, 1), stats(90, 9), False),
        (stats(10, 2), stats(90, 9), True),
        (stats(10, 1), stats(0), True),
    ],
)
def test_a_candidate_may_fail_no_larger_part_than_the_current_model(candidate, current, more):
    assert fails_more({"candidate": candidate, "current": current}) is more


def test_what_came_before_the_step_does_not_count():
    assert since(stats(100, 5, 2), stats(110, 6, 3)) == stats(10, 1, 3)
    assert since(None, stats(3)) == stats(3)


def test_both_are_told():
    assert words({"candidate": stats(10, 1), "current": stats(90)}) == (
        "candidate 10 requests, 1 failed, first byte after 12 ms; "
        "the current model 90 requests, 0 failed, first byte after 12 ms"
    )
