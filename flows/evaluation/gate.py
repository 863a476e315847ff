"""The gate: nothing is served that the evaluation does not support."""

from __future__ import annotations

from pydantic import BaseModel

from flows.evaluation.config import GatePolicy
from flows.evaluation.results import Metrics, RungSemScore
from flows.evaluation.truthfulness import mean_score


class Verdict(BaseModel):
    """Whether the model may be served, and why, in words; `failed` are the reasons against it."""

    passed: bool
    reasons: list[str]
    failed: list[str]


def decide(metrics: Metrics, policy: GatePolicy, split: str = "test") -> Verdict:
    """Better where it was taught, and nowhere proven worse, on the test share."""
    checks = [_taught(metrics.semscore.reworded, policy)]
    if split != "test":
        checks.append((False, f"measured on the {split} share, on which recipes are tuned: only the test share counts"))
    for name in ("studied", "unseen"):
        rung: RungSemScore | None = getattr(metrics.semscore, name)
        if rung is not None:
            checks.append(_not_worse(name, rung, policy))
    if policy.require_truthfulness:
        checks.append(_truthful(metrics))
    failed = [reason for passed, reason in checks if not passed]
    return Verdict(passed=not failed, reasons=[reason for _, reason in checks], failed=failed)


def _interval(rung: RungSemScore) -> str:
    low, high = rung.delta.ci95
    return f"{rung.delta.mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, {rung.n} rows)"


def _taught(rung: RungSemScore | None, policy: GatePolicy) -> tuple[bool, str]:
    if rung is None:
        return False, "reworded: there are no reworded rows, so nothing shows that the model learnt what it was taught"
    passed = rung.delta.ci95[0] > policy.min_delta
    verb = "lies above" if passed else "does not lie above"
    return passed, f"reworded: the SemScore gain {_interval(rung)} {verb} {policy.min_delta:+.3f}"


def _not_worse(name: str, rung: RungSemScore, policy: GatePolicy) -> tuple[bool, str]:
    passed = rung.delta.ci95[1] >= -policy.margin
    verb = "is not proven worse" if passed else "is proven worse"
    return passed, f"{name}: the change {_interval(rung)} {verb} than {-policy.margin:+.3f}"


def _truthful(metrics: Metrics) -> tuple[bool, str]:
    if metrics.truthfulness.stand_in:
        return False, "truthfulness: required, but no LLM judge is configured and the stand-in does not count"
    rung = metrics.truthfulness.reworded
    base = mean_score(rung.base) if rung else None
    trained = mean_score(rung.trained) if rung else None
    if base is None or trained is None:
        return False, "truthfulness: required, but the judge gave no readable verdict on reworded rows"
    verb = "is above" if trained > base else "is not above"
    return trained > base, f"truthfulness: the judge's mean {trained:.2f} {verb} the base model's {base:.2f}"
