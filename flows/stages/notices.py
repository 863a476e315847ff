"""Telling of the end of a run: hooks of the flows, called by Prefect once a run's end is known and kept.

As hooks they also hear of runs that were refused before the flow began, and whatever happens to a message, the run's
end stays what it is. A run that is started again tells nothing twice: what was told is kept in the run's folder.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger
from prefect.states import State
from pydantic import ValidationError

from flows.errors import ConfigError, FinetuneError
from flows.reporting import notice as notices
from flows.reporting.contract import RunReport
from flows.reporting.notice import Notice
from flows.reporting.notice_config import NoticeConfig
from flows.reporting.write import write_report
from flows.stages.notice_send import send
from flows.stages.opening import open_store
from flows.stages.report import report_of
from flows.stages.run_context import page_of
from flows.stages.unchanged import NAME as NOTHING_CHANGED
from flows.store.files import read_json, write_json

TOLD = "notices.json"
Logger = logging.Logger | logging.LoggerAdapter[Any]


def tell(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Send the message of the run's end through all blocks that `run.notify` names; what fails is only logged."""
    given = flow_run.parameters or {}
    options = _plain(given.get("run"))
    try:
        config = NoticeConfig.model_validate(options.get("notify") or {})
    except ValidationError:  # the run was refused for that, and nobody is named
        return
    if not config.blocks or given.get("dry_run"):
        return
    logger = flow_run_logger(flow_run, flow)
    folder = _folder(str(options.get("store") or ""), str(flow_run.id))
    notice = message(flow_run, state, str(options.get("title") or flow.name), folder)
    if notice.event in config.events:
        deliver(notice, config, folder, logger)


def message(flow_run: FlowRun, state: State[Any], title: str, folder: Path | None) -> Notice:
    """What is told of a run that ended in this state and left its report, if it has one, in the folder."""
    report = report_of(folder) if folder else None
    url = page_of(str(flow_run.id))
    words = state.message or ""
    if state.is_failed():
        return notices.of_failure(title, str(flow_run.id), flow_run.name, url, words, report)
    if report is not None and folder is not None and state.name != NOTHING_CHANGED:
        return notices.of_report(report, folder)
    return Notice(
        event="nothing-changed" if state.name == NOTHING_CHANGED else "succeeded",
        title=title,
        run_id=str(flow_run.id),
        run_name=flow_run.name,
        run_url=url,
        line=notices.cause(words),
    )


def deliver(notice: Notice, config: NoticeConfig, folder: Path | None, logger: Logger) -> None:
    """Send it through every block that has not had it; note in the run's folder and report what became of it."""
    told: list[dict[str, Any]] = (read_json(folder / TOLD) if folder else None) or []
    lost = []
    for block in dict.fromkeys(config.blocks):
        if any(one["block"] == block and one["message"] == notice.identity and one["delivered"] for one in told):
            continue
        why = ""
        try:
            send(block, notice, config)
            logger.info("Told %s: %s", block, notice.subject)
        except FinetuneError as error:
            why = str(error)
            lost.append(f"The message of this run could not be delivered through {block}: {why}.")
            logger.warning("%s", lost[-1])
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        told.append({"block": block, "message": notice.identity, "delivered": not why, "why": why, "time": now})
        if folder:
            with contextlib.suppress(OSError):  # the store itself may be what is wrong
                write_json(folder / TOLD, told)
    if lost and folder and notice.report:
        _note_in_report(notice.report, lost, folder, logger)


def _note_in_report(report: RunReport, lost: list[str], folder: Path, logger: Logger) -> None:
    warned = report.model_copy(update={"warnings": list(dict.fromkeys([*report.warnings, *lost]))})
    try:
        write_report(warned, folder)
    except OSError as error:
        logger.warning("The report could not be written again: %s", error)


def _folder(store: str, run_id: str) -> Path | None:
    """The run's folder; None where the store that is named can be none."""
    try:
        return open_store(store).run(run_id)
    except ConfigError:
        return None


def _plain(value: Any) -> dict[str, Any]:
    """Parameters as Prefect keeps them are JSON; those of a call from Python may be models."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    return value if isinstance(value, dict) else {}
