"""A person's yes or no to a promotion, given in the Prefect UI."""

from __future__ import annotations

import time

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from flows.reporting.contract import CheckReport
from flows.reporting.promotion import checks_markdown
from flows.serving.config import ServeConfig

POLL_S = 2


class Approval(RunInput):
    """The form that is shown when the run is resumed. Who does not say yes has not said it."""

    approve: bool = False
    comment: str = ""


def ask_a_person(config: ServeConfig, checks: list[CheckReport]) -> CheckReport:
    """Pause the run with what was checked so far, and wait. No answer in time means no."""
    began = time.monotonic()
    form = Approval.with_initial_data(description=checks_markdown(config.name, checks), approve=False, comment="")
    try:
        answer = pause_flow_run(
            wait_for_input=form, timeout=config.promotion.approval_timeout_s, poll_interval=POLL_S, key="approval"
        )
    except FlowPauseTimeout:
        approved, words = False, f"nobody answered within {config.promotion.approval_timeout_s} s"
    else:
        approved = bool(answer and answer.approve)
        words = ("yes" if approved else "no") + (f": {answer.comment}" if answer and answer.comment else "")
    return CheckReport(name="approval", passed=approved, words=words, seconds=time.monotonic() - began)
