from flows.evaluation.results import Estimate
from flows.reporting.contract import VariantReport
from flows.stages.report import _undecided


def variant(name, gain, chosen=False):
    delta = None if gain is None else Estimate(mean=gain, ci95=(-1, 1))
    return VariantReport(name=name, overrides=[], n=3, delta=delta, chosen=chosen)


def test_variants_that_are_equally_good_are_said_to_be():
    [warning] = _undecided([variant("slow", 0.1, chosen=True), variant("fast", 0.1), variant("lost", None)])
    assert warning.startswith("On the dev share (3 reworded rows) slow gains no more than fast: ")
    assert _undecided([variant("slow", 0.1), variant("fast", 0.2, chosen=True)]) == []
    assert _undecided([]) == []
