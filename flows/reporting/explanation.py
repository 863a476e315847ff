"""What a run would do, as a table for the Prefect UI."""

from __future__ import annotations

from collections.abc import Sequence

from flows.reporting.contract import StageReport
from flows.reporting.markdown import plain, table

WORDS = {"ran": "would run", "cached": "is there already", "skipped": "is left out"}


def explanation_markdown(stages: Sequence[StageReport]) -> str:
    """A row a stage: what would become of it, why, and which run made what is there already."""
    rows = [[plain(one.name), WORDS[one.status], plain(one.why), _link(one)] for one in stages]
    head = ["stage", "with these parameters", "why", "made by"]
    return f"# What would run\n\n{explanation_line(stages)}\n\n{table(head, list(map(list, rows)))}\n"


def explanation_line(stages: Sequence[StageReport]) -> str:
    """What would run, in one sentence."""
    running = [one.name for one in stages if one.status == "ran"]
    cached = sum(one.status == "cached" for one in stages)
    return f"Would run: {', '.join(running) or 'nothing'}. Of the others {cached} are there already."


def _link(stage: StageReport) -> str:
    if not stage.from_run:
        return ""
    return f"[{plain(stage.from_run)}]({stage.from_run_url})" if stage.from_run_url else plain(stage.from_run)
