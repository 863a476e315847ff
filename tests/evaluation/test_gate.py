"""Nothing passes the gate that the figures do not support, and it says why in words."""

import pytest

from flows.evaluation.config import GatePolicy
from flows.evaluation.gate import decide
from flows.evaluation.results import Estimate, Metrics, RungSemScore, RungTruthfulness, SemScore, Truthfulness


def rung(mean, low, high, n=40):
    level = Estimate(mean=0.4, ci95=(0.3, 0.5))
    delta = Estimate(mean=mean, ci95=(low, high))
    return RungSemScore(n=n, groups=n, base=level, trained=level, delta=delta, floor=0.2, ceiling=1.0, embedder="e")


def verdicts(base, trained):
    """Counts from lists of scores."""
    keys = ["1", "2", "3", "4", "5", "unparsed"]
    return RungTruthfulness(
        base={key: base.count(key) for key in keys}, trained={key: trained.count(key) for key in keys}
    )


def metrics(reworded=None, studied=None, unseen=None, judged=None, stand_in=True):
    return Metrics(
        semscore=SemScore(reworded=reworded, studied=studied, unseen=unseen),
        truthfulness=Truthfulness(judge="j", stand_in=stand_in, reworded=judged),
    )


BETTER = rung(0.24, 0.16, 0.32)


def test_a_recipe_is_not_proven_on_the_share_on_which_it_was_tuned():
    verdict = decide(metrics(BETTER), GatePolicy(), "dev")
    assert not verdict.passed
    assert "measured on the dev share" in verdict.reasons[-1]
    assert verdict.failed == verdict.reasons[-1:]


def test_better_where_taught_and_nowhere_worse_passes():
    verdict = decide(metrics(BETTER, rung(0.0, -0.04, 0.04), rung(-0.04, -0.1, 0.02, n=12)), GatePolicy())
    assert (verdict.passed, verdict.failed) == (True, [])
    assert verdict.reasons == [
        "reworded: the SemScore gain +0.240 (95 % interval +0.160 to +0.320, 40 rows) lies above +0.000",
        "studied: the change +0.000 (95 % interval -0.040 to +0.040, 40 rows) is not proven worse than -0.050",
        "unseen: the change -0.040 (95 % interval -0.100 to +0.020, 12 rows) is not proven worse than -0.050",
    ]


@pytest.mark.parametrize(("low", "min_delta", "passed"), [(0.0, 0.0, False), (1e-6, 0.0, True), (0.1, 0.1, False)])
def test_the_whole_interval_must_lie_above_the_least_gain(low, min_delta, passed):
    verdict = decide(metrics(rung(0.2, low, 0.3)), GatePolicy(min_delta=min_delta))
    assert verdict.passed is passed
    assert verdict.reasons[0].endswith(f"{'lies' if passed else 'does not lie'} above {min_delta:+.3f}")


def test_without_reworded_rows_nothing_passes():
    verdict = decide(metrics(unseen=BETTER), GatePolicy(min_delta=-1))
    assert not verdict.passed
    assert "no reworded rows" in verdict.reasons[0]


@pytest.mark.parametrize(("high", "passed"), [(-0.06, False), (-0.05, True), (0.1, True)])
@pytest.mark.parametrize("name", ["studied", "unseen"])
def test_another_rung_proven_worse_than_the_margin_fails(name, high, passed):
    verdict = decide(metrics(BETTER, **{name: rung(-0.2, -0.3, high)}), GatePolicy(margin=0.05))
    assert verdict.passed is passed
    assert len(verdict.reasons) == 2
    words = "is not proven worse" if passed else "is proven worse"
    assert verdict.reasons[1] == (
        f"{name}: the change -0.200 (95 % interval -0.300 to {high:+.3f}, 40 rows) {words} than -0.050"
    )


@pytest.mark.parametrize(
    ("judged", "stand_in", "passed", "words"),
    [
        (verdicts(["1"], ["5"]), True, False, "no LLM judge is configured and the stand-in does not count"),
        (verdicts(["1", "2"], ["4", "unparsed"]), False, True, "the judge's mean 4.00 is above the base model's 1.50"),
        (verdicts(["4"], ["4"]), False, False, "the judge's mean 4.00 is not above the base model's 4.00"),
        (verdicts(["4"], ["unparsed"]), False, False, "no readable verdict on reworded rows"),
        (None, False, False, "no readable verdict on reworded rows"),
    ],
)
def test_truthfulness_counts_only_where_it_is_required(judged, stand_in, passed, words):
    found = metrics(BETTER, judged=judged, stand_in=stand_in)
    assert decide(found, GatePolicy()).passed
    verdict = decide(found, GatePolicy(require_truthfulness=True))
    assert verdict.passed is passed
    assert words in verdict.reasons[-1]
