"""Verdicts are counted, unread ones too, and the stand-in is called one."""

import pytest

from flows.evaluation.semscore import Scored, semscore
from flows.evaluation.truthfulness import STAND_IN, counts, mean_score, stand_in_scores, truthfulness

HASHED = "hashed:char-ngrams"
NONE = {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0, "unparsed": 0}


def test_every_score_is_counted_and_unread_ones_apart():
    assert counts([1, 5, None, 5, None, None]) == NONE | {"1": 1, "5": 2, "unparsed": 3}


@pytest.mark.parametrize(
    ("found", "mean"),
    [
        (NONE, None),
        (NONE | {"unparsed": 9}, None),
        (NONE | {"2": 1, "5": 2, "unparsed": 9}, 4.0),
        (NONE | {"1": 3}, 1.0),
    ],
)
def test_the_mean_is_of_what_could_be_read(found, mean):
    assert mean_score(found) == mean


def test_verdicts_are_given_by_rung(row):
    rows = [row(0), row(1, rung="unseen"), row(2)]
    found = truthfulness(rows, [1, 2, None], [3, 4, 5], "judge-model")
    assert (found.judge, found.stand_in, found.studied) == ("judge-model", False, None)
    assert found.reworded.base == NONE | {"1": 1, "unparsed": 1}
    assert found.reworded.trained == NONE | {"3": 1, "5": 1}
    assert found.unseen.base == NONE | {"2": 1}
    assert found.unseen.trained == NONE | {"4": 1}


def test_without_a_judge_the_stand_in_is_named(row):
    found = truthfulness([row(0)], [1], [2], "")
    assert (found.judge, found.stand_in) == (STAND_IN, True) == ("stand-in: similarity", True)


def test_the_stand_in_runs_from_the_rung_s_floor_to_its_ceiling(row):
    rows = [row(n, answer=answer) for n, answer in enumerate(["bill of lading", "letter of credit", "a carnet"])]
    targets = [row.answer for row in rows]
    scored = Scored(HASHED, rows, targets, targets)
    score = semscore(rows, scored, HASHED)
    low, high = score.reworded.floor, score.reworded.ceiling
    scored.base[:] = [low, (low + high) / 2, high]
    scored.trained[:] = [low - 1, low + 0.26 * (high - low), high + 1]
    assert stand_in_scores(rows, scored, score) == ([1, 3, 5], [1, 2, 5])
