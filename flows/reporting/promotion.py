"""The checks of a promotion as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from flows.reporting.contract import CheckReport
from flows.reporting.markdown import plain, table


def checks_markdown(name: str, checks: Sequence[CheckReport]) -> str:
    """What was checked before the name moves, a line each, and the verdict so far."""
    failed = [check for check in checks if not check.passed]
    verdict = f"Refused by {failed[0].name}; what served before goes on serving." if failed else "All passed."
    rows = [
        [check.name, "passed" if check.passed else "**failed**", plain(check.words), f"{check.seconds:.1f} s"]
        for check in checks
    ]
    head = table(["check", "verdict", "figures", "took"], rows)
    return f"# Promotion of {plain(name)}\n\n{verdict}\n\n{head}\n"
