"""Promotion in a run: the candidate is started, questioned, loaded, perhaps approved; then the name moves to it.

Each step is a task. Whatever fails, is cancelled or crashes, the context of `Promotion` ends the candidate and what
served before goes on serving. (Prefect's transactions would give no more: they too live in the process of the run.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.states import State
from prefect.tasks import Task

from flows.errors import FinetuneError
from flows.evaluation.live import LiveComparison, check_against_offline, compare, live_replies
from flows.reporting.contract import CheckReport
from flows.reporting.promotion import checks_markdown, checks_verdict
from flows.serving.access import target
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.promotion import Maker, Promotion
from flows.stages.approval import ask_a_person
from flows.stages.evidence import Questions, evaluation_of_current, evaluation_of_run
from flows.stages.load_check import load_check
from flows.stages.run_context import RunContext
from flows.stages.stage_task import StageError, failing_in_words
from flows.stages.traffic import steps, traffic_check

NAME = "serve"
COMPARED = "not worse than the current model"
PARALLEL = 4  # questions under way at a time


class PromotionRefusedError(StageError):
    """A check of the candidate failed; what served before goes on serving."""


def promote(
    run: RunContext, config: ServeConfig, model: Path, own_evaluation: Path | None, checks: list[CheckReport]
) -> Endpoint:
    """Move the endpoint `config.name` to the model if its live endpoint passes the checks; what serves now.

    `own_evaluation` is the folder of the evaluation of this very model, if there was one. `checks` is filled as it
    goes, so that a refused promotion can be shown too.

    Raises:
        PromotionRefusedError: a check failed.
        StageError: the candidate did not become healthy, or the settings cannot work.
    """
    try:
        serving = _checked(run, config, model, own_evaluation, checks)
    except BaseException as error:
        _show(run, config, checks, str(error) or type(error).__name__)
        raise
    _show(run, config, checks)
    return serving


def _checked(
    run: RunContext, config: ServeConfig, model: Path, own_evaluation: Path | None, checks: list[CheckReport]
) -> Endpoint:
    options = config.promotion
    try:
        evaluation = _evaluation(run, config, own_evaluation)
        uri = "" if model == Path() else str(model)
        maker = Maker(run.run_id, run.run_url, uri, str(own_evaluation or evaluation or ""))
        with Promotion(config, model, run.store.endpoints, maker) as promotion:
            started = time.monotonic()
            candidate: Endpoint = step(run, NAME, lambda: promotion.start(run.progress(NAME)))
            if promotion.serving is not None:
                run.logger.info("%s serves this model already.", candidate.name)
                return promotion.serving
            words = f"{candidate.state.value} at {candidate.url}"
            note(run, checks, CheckReport(name="healthy", passed=True, words=words, seconds=time.monotonic() - started))
            if (named := name_check(promotion)) is not None:
                judge(run, checks, named)
            if options.rows and evaluation is not None:
                _ask_questions(run, promotion, evaluation, own=evaluation == own_evaluation, checks=checks)
            elif options.rows:
                run.logger.warning("No held-out questions are known for this model: it is not evaluated again.")
            if options.load_requests:
                report = step(run, "load-run", lambda: load_check(run, promotion, evaluation))
                judge(run, checks, report)
            if options.approval:
                judge(run, checks, ask_a_person(config, checks))
            if promotion.current:
                _shift_traffic(run, promotion, checks)
            moved: Endpoint = step(run, "promote", promotion.commit)
            return moved
    except StageError:
        raise
    except FinetuneError as error:
        raise StageError(NAME, str(error)) from error


def name_check(promotion: Promotion) -> CheckReport | None:
    """Whether requests that name the current model are understood by the candidate; None where nothing changes.

    Clients of a front keep address and token, and would send the old name. While both serve, no name suits both.
    """
    current, candidate = promotion.current, promotion.candidate
    if current is None or candidate is None or current.front is None or current.model == candidate.model:
        return None
    strategy = promotion.config.promotion.strategy
    how = "clients must ask for it from then on" if strategy == "replace" else f"{strategy} would fail their requests"
    return CheckReport(
        name="same model name",
        passed=strategy == "replace",
        words=f"clients ask for {current.model}, the candidate answers to {candidate.model} only: {how}. A name that "
        "stays is serve.served_model_name",
        seconds=0.0,
    )


def _show(run: RunContext, config: ServeConfig, checks: list[CheckReport], error: str = "") -> None:
    """The checks on a page; what was promoted or refused is so, even if the page cannot be shown."""
    if not checks:
        return
    text = checks_markdown(config.name, checks, error)
    try:
        create_markdown_artifact(text, key="promotion", description=checks_verdict(checks, error))
    except Exception as failure:  # of whatever client
        run.logger.warning("The page of the promotion could not be shown: %s", failure)


def step(run: RunContext, name: str, work: Callable[[], Any]) -> Any:
    """What `work` returns, done as a task of the run.

    Raises:
        StageError: it failed; the message is for people.
    """
    once: Any = Task(fn=lambda: failing_in_words(run, name, work), name=name, task_run_name=name, persist_result=False)
    state: State[Any] = once(return_state=True)
    if not state.is_completed():
        raise StageError(NAME, state.message or f"The step {name} ended as {state.name}.")
    return state.result()


def note(run: RunContext, checks: list[CheckReport], check: CheckReport) -> None:
    """Keep a check's result, and log it."""
    checks.append(check)
    say = run.logger.warning if check.skipped else run.logger.info
    say("%s: %s. %s", check.name, "FAILED" if check.verdict == "failed" else check.verdict, check.words)


def judge(run: RunContext, checks: list[CheckReport], check: CheckReport) -> None:
    """Keep a check's result, and end the promotion if it failed.

    Raises:
        PromotionRefusedError: it failed.
    """
    note(run, checks, check)
    if check.verdict == "failed":
        raise PromotionRefusedError(NAME, f"The promotion is refused. {check.name}: {check.words}")


def _evaluation(run: RunContext, config: ServeConfig, own: Path | None) -> Path | None:
    if config.promotion.questions_of_run:
        return evaluation_of_run(run.store, config.promotion.questions_of_run)
    return own or evaluation_of_current(run.store, config.name)


def _ask_questions(
    run: RunContext, promotion: Promotion, evaluation: Path, *, own: bool, checks: list[CheckReport]
) -> None:
    """Ask candidate and current model the same held-out questions through their endpoints."""
    options = promotion.config.promotion
    questions = Questions(evaluation, options.rows)
    current = promotion.current
    began = time.monotonic()
    assert promotion.candidate is not None
    replies = step(run, "question-candidate", lambda: _replies(run, promotion.candidate, "candidate", questions))

    def passed(name: str, found: LiveComparison) -> CheckReport:
        return CheckReport(name=name, passed=found.passed, words=found.reason, seconds=time.monotonic() - began)

    if own:
        found = check_against_offline(questions.rows, replies, questions.offline, questions.embedder, options.margin)
        judge(run, checks, passed("same as evaluated", found))
        began = time.monotonic()
    if current is None:
        return
    try:
        former = step(run, "question-current", lambda: _replies(run, current, "current", questions))
    except StageError as error:
        words, seconds = f"the current model does not answer: {error}", time.monotonic() - began
        note(run, checks, CheckReport(name=COMPARED, passed=False, skipped=True, words=words, seconds=seconds))
        return
    found = compare(questions.rows, replies, former, questions.embedder, options.margin)
    judge(run, checks, passed(COMPARED, found))


def _shift_traffic(run: RunContext, promotion: Promotion, checks: list[CheckReport]) -> None:
    for percent in steps(promotion.config.promotion):
        judge(run, checks, step(run, f"traffic-{percent}", partial(traffic_check, run, promotion, percent)))


def _replies(run: RunContext, endpoint: Endpoint | None, who: str, questions: Questions) -> list[str]:
    assert endpoint is not None
    kept = run.store.run(run.run_id) / "promotion" / f"{who}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    progress, count = run.progress(NAME), len(questions.rows)
    return live_replies(
        target(endpoint),
        questions.rows,
        questions.max_tokens,
        PARALLEL,
        kept,
        lambda done: progress(done, count, f"{who}: {done} of {count} questions"),
    )
