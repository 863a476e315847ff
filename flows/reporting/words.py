"""How a report says things: numbers, intervals, durations, and what the rungs and controls mean."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from flows.evaluation.results import Estimate, RungSemScore, SemScore, Truthfulness
from flows.evaluation.truthfulness import STAND_IN as STAND_IN
from flows.evaluation.truthfulness import mean_score as mean_score
from flows.reporting.contract import RunReport

DASH = "–"
ARROW = "→"
SCORES = ("1", "2", "3", "4", "5")

RUNG_FACTS = {
    "reworded": "trained facts, asked in other words",
    "studied": "facts it only read in the text",
    "unseen": "facts that stood nowhere",
}
RUNG_ASKS = {
    "reworded": "Facts that were trained, asked in other words: does it know what it was taught, however one asks?",
    "studied": "Facts that stood only in the text it read: does it pick facts up from reading?",
    "unseen": "Facts that stood nowhere: did it learn the field's language, and did it lose anything?",
}
HOW_TO_READ = {
    "SemScore": "The cosine between the sentence embeddings of reply and target: 1 means the same, 0 nothing of it.",
    **RUNG_ASKS,
    "floor": "What another question's target gets as the reply: a fluent reply that misses the question scores this.",
    "ceiling": "What the target itself gets as the reply: no reply can score higher.",
    "95 % interval": "Asked again with other questions of this kind, the mean would nearly always lie in it; "
    "a change whose interval holds 0 is not proven.",
    "truthfulness": "A judge reads reply and target and gives 1 (wrong) to 5 (right); replies to which it gave no "
    "readable score are counted as unparsed and are in no mean.",
    "stand-in": "Where no LLM judged, 1 to 5 is the cosine scaled between floor (1) and ceiling (5); no gate reads it.",
}


def number(value: float | None, digits: int = 2) -> str:
    """A figure with fixed digits and thousands separators; a dash for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    return (text.lstrip("-") if not text.strip("-0.,") else text).replace("-", "−")


def signed(value: float | None) -> str:
    """A difference with two digits and its sign; 0.00 has none."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and text not in (DASH, "0.00") else text


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a mean: `0.41 to 0.49`."""
    return f"{number(estimate.ci95[0])} to {number(estimate.ci95[1])}"


def signed_interval(estimate: Estimate) -> str:
    """The 95 % interval of a difference: `+0.16 to +0.32`."""
    return f"{signed(estimate.ci95[0])} to {signed(estimate.ci95[1])}"


def change(delta: Estimate) -> str:
    """`better` or `worse` where the interval excludes 0, else `not proven`."""
    low, high = delta.ci95
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not proven"


def duration(seconds: float | None) -> str:
    """Seconds as `4.2 s`, `7 min 12 s` or `3 h 05 min`; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def moment(text: str) -> str:
    """An ISO time to the minute; any other text as it is."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


def or_dash(value: Any) -> str:
    """Any value as text; a dash for None and for empty text."""
    return DASH if value is None or value == "" else str(value)


def percent(share: float | None) -> str:
    """A share 0..1 as a percentage; a dash for None."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def embedders(semscore: SemScore) -> str:
    """What made the sentence embeddings; a dash where no rung has rows."""
    scores = (semscore.reworded, semscore.studied, semscore.unseen)
    return ", ".join(dict.fromkeys(score.embedder for score in scores if score is not None)) or DASH


def judge(truthfulness: Truthfulness) -> str:
    """Who gave the truthfulness scores; a stand-in is called one, whatever its name."""
    if not truthfulness.stand_in:
        return or_dash(truthfulness.judge)
    named = truthfulness.judge not in ("", STAND_IN)
    return f"{STAND_IN} ({truthfulness.judge})" if named else STAND_IN


def judged(counts: dict[str, int], *scores: str) -> int:
    """How many replies got one of these scores (`1`..`5`, `unparsed`)."""
    return sum(counts.get(score, 0) for score in scores)


def gate_words(report: RunReport) -> str:
    """The verdict of the gate."""
    return "The gate passed" if report.gate.passed else "The gate did not pass"


def headline(score: RungSemScore | None) -> str:
    """The figure everyone asks for: `reworded SemScore 0.45 → 0.69 (+0.24, 95 % interval +0.16 to +0.32, n = 57)`."""
    if score is None:
        return "no reworded rows, so there is no headline figure"
    return (
        f"reworded SemScore {number(score.base.mean)} {ARROW} {number(score.trained.mean)} "
        f"({signed(score.delta.mean)}, 95 % interval {signed_interval(score.delta)}, n = {score.n:,})"
    )
