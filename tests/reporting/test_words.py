import math

import pytest

from flows.evaluation.results import Estimate, Truthfulness
from flows.reporting import words
from flows.reporting.contract import StageReport


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (None, 2, "–"),
        (math.nan, 2, "–"),
        (math.inf, 2, "–"),
        (0, 2, "0.00"),
        (0.455, 2, "0.46"),
        (-0.001, 2, "0.00"),
        (-0.04, 2, "−0.04"),
        (25993, 0, "25,993"),
    ],
)
def test_number(value, digits, shown):
    assert words.number(value, digits) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.24, "+0.24"), (-0.24, "−0.24"), (0.0, "0.00"), (0.001, "0.00"), (None, "–"), (math.inf, "–")],
)
def test_signed(value, shown):
    assert words.signed(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0, "0.0 s"),
        (4.24, "4.2 s"),
        (59.96, "1 min 00 s"),
        (431.2, "7 min 11 s"),
        (3600, "1 h 00 min"),
        (11096, "3 h 04 min"),
    ],
)
def test_duration(seconds, shown):
    assert words.duration(seconds) == shown


@pytest.mark.parametrize(
    ("ci95", "word"),
    [((0.01, 0.2), "better"), ((-0.2, -0.01), "worse"), ((-0.1, 0.1), "not proven"), ((0.0, 0.1), "not proven")],
)
def test_a_change_is_proven_only_where_the_interval_excludes_zero(ci95, word):
    assert words.change(Estimate(mean=sum(ci95) / 2, ci95=ci95)) == word


def test_unparsed_replies_are_counted_but_in_no_mean():
    counts = {"1": 1, "5": 1, "unparsed": 8}
    assert words.mean_score(counts) == 3.0
    assert words.judged(counts, "unparsed") == 8
    assert words.mean_score({"unparsed": 8}) is None


@pytest.mark.parametrize(
    ("judge", "stand_in", "shown"),
    [
        ("gpt-5", False, "gpt-5"),
        ("stand-in: similarity", True, "stand-in: similarity"),
        ("cosine", True, "stand-in: similarity (cosine)"),
    ],
)
def test_a_stand_in_is_called_one_whatever_its_name(judge, stand_in, shown):
    assert words.judge(Truthfulness(judge=judge, stand_in=stand_in)) == shown


def test_a_time_is_shown_to_the_minute_and_other_text_as_it_is():
    assert words.moment("2026-11-25T01:40:12.482913+00:00") == "2026-11-25 01:40 UTC"
    assert words.moment("yesterday") == "yesterday"


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["ran", "ran"], ""),
        (["cached", "ran", "skipped"], " 1 of 2 stages was cached."),
        (["cached", "cached", "ran"], " 2 of 3 stages were cached."),
        (["cached", "skipped"], " All stages were cached."),
        ([], ""),
    ],
)
def test_how_much_of_a_run_was_there_already(statuses, said):
    stages = [StageReport(name=f"stage-{n}", status=status, seconds=0) for n, status in enumerate(statuses)]
    assert words.cached_words([*stages, StageReport(name="serve", status="ran", seconds=1)]) == said
