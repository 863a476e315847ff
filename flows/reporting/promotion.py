"""The checks of a promotion as Markdown, and in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flows.reporting.contract import CheckReport
from flows.reporting.markdown import plain, table

STAYS = "what served before goes on serving"


def checks_markdown(name: str, checks: Sequence[CheckReport], error: str = "") -> str:
    """What was checked before the name moves, the figures of each below the table, and the verdict so far.

    `error` says what else ended the promotion, if anything did.
    """
    rows = [
        [check.name, "**failed**" if check.verdict == "failed" else check.verdict, f"{check.seconds:.1f} s"]
        for check in checks
    ]
    verdict = checks_verdict(checks, error)
    parts = [f"# Promotion of {plain(name)}", f"{plain(verdict[:1].upper() + verdict[1:])}."]
    # Not in the table: beside a long cell the last columns are out of sight on Prefect's page.
    figures = "\n".join(f"- **{check.name}**: {plain(check.words)}" for check in checks)
    return "\n\n".join([*parts, table(["check", "verdict", "took"], rows), figures]) + "\n"


def checks_verdict(checks: Sequence[CheckReport], error: str = "") -> str:
    """The verdict so far in a line, without a full stop; `error` as above."""
    if refused := next((check for check in checks if check.verdict == "failed"), None):
        return f"refused by {refused.name}; {STAYS}"
    counts = Counter(check.verdict for check in checks)
    made = f"{counts['passed']} check{'' if counts['passed'] == 1 else 's'} passed"
    made += f", {counts['skipped']} skipped" if counts["skipped"] else ""
    if not error:
        return made
    return f"ended by an error after {made}: {error.strip().splitlines()[0].rstrip('.')}; {STAYS}"
