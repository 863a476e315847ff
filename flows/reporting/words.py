"""How a report says things: numbers, intervals, durations, and what the rungs and controls mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from flows.cost.cost import Cost
from flows.evaluation.results import Estimate, RungSemScore, SemScore, Truthfulness
from flows.evaluation.truthfulness import STAND_IN as STAND_IN
from flows.evaluation.truthfulness import mean_score as mean_score
from flows.reporting.contract import CostReport, RunReport, StageReport

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


def energy(kwh: float | None) -> str:
    """Kilowatt-hours as `0.012 kWh`, or `unknown`."""
    return "unknown" if kwh is None or not math.isfinite(kwh) else f"{kwh:,.3g} kWh"


def flops(count: float | None) -> str:
    """Floating-point operations as `12.3 TFLOP`; a dash for None."""
    if count is None or not math.isfinite(count):
        return DASH
    for size, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if count >= size:
            return f"{count / size:,.3g} {name}"
    return f"{count:,.0f} FLOP"


def gpu_time(hours: float | None) -> str:
    """GPU-hours as `3.1 GPU-h`, three digits where they are few."""
    if hours is None or not math.isfinite(hours):
        return DASH
    return f"{hours:,.1f} GPU-h" if hours >= 1 else f"{hours:.3g} GPU-h"


def money(amount: float | None, currency: str) -> str:
    """An amount as `1.20 EUR`; `no price` where none was given, `unknown` where something priced is."""
    if not currency:
        return "no price"
    return "unknown" if amount is None else f"{amount:,.2f} {currency}"


def cached_words(stages: Sequence[StageReport]) -> str:
    """How much of a run was there already, as a sentence after another; empty if nothing was."""
    made = [stage for stage in stages if stage.status != "skipped" and stage.name != "serve"]
    cached = sum(stage.status == "cached" for stage in made)
    if not cached:
        return ""
    if cached == len(made):
        return " All stages were cached."
    return f" {cached} of {len(made)} stages {'was' if cached == 1 else 'were'} cached."


def cost_line(cost: CostReport) -> str:
    """What a run cost in a line: `7 min 12 s of work, 0.4 GPU-h, energy unknown, 1.20 EUR; saved 3.1 GPU-h`."""
    parts = [f"{duration(cost.seconds if cost.work_seconds is None else cost.work_seconds)} of work"]
    if cost.gpu_hours:
        parts.append(gpu_time(cost.gpu_hours))
    parts.append("energy unknown" if cost.energy_kwh is None else energy(cost.energy_kwh))
    if cost.currency:
        parts.append("money unknown" if cost.money is None else money(cost.money, cost.currency))
    return ", ".join(parts) + (f"; {saved_words(cost.saved, cost.currency)}" if cost.saved else "")


COST_HEAD = ["time of work", "GPU", "energy", "tokens", "operations", "money", "attempts"]


def cost_cells(cost: Cost, currency: str) -> list[str]:
    """The cells under COST_HEAD."""
    return [
        duration(cost.seconds),
        gpu_time(cost.gpu_hours) if cost.gpu_hours else DASH,
        energy(cost.energy_kwh),
        number(cost.tokens, 0),
        flops(cost.flops),
        money(cost.money, currency) if currency else DASH,
        str(cost.attempts),
    ]


def saved_words(saved: Cost, currency: str = "") -> str:
    """What was not spent again: `saved 3.1 GPU-h`; time where no card was in use; money too where it is known."""
    what = gpu_time(saved.gpu_hours) if saved.gpu_hours else duration(saved.seconds)
    return f"saved {what}" + (f", {money(saved.money, currency)}" if saved.money is not None else "")


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
