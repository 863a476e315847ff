"""Sending a message through one Prefect block: a mail server, a webhook, or any block that can notify."""

from __future__ import annotations

import contextvars
import re
import smtplib
import threading
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial
from typing import Any

import httpx
import tenacity
from prefect.blocks import notifications  # noqa: F401  (so that Block.load knows them)
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect_email import EmailServerCredentials

from flows.errors import TransientError
from flows.reporting.notice import Notice, as_html, as_json, as_text
from flows.reporting.notice_config import NoticeConfig

TRIES = 4
LONGEST_TRY_S = 20.0
LONGEST_S = 60.0  # of all tries of a block: a run waits no longer for a server that is down
FIRST_PAUSE_S = 1.0


def send(block: str, notice: Notice, config: NoticeConfig) -> None:
    """Deliver the message through the block `TYPE/NAME`, with retries.

    Raises:
        TransientError: it could not be delivered; the message is the last cause, without secrets of ours.
    """
    again = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_after_delay(LONGEST_S),
        wait=tenacity.wait_exponential(multiplier=FIRST_PAUSE_S, max=10),
        retry=tenacity.retry_if_exception(_can_help),
        reraise=True,
    )
    try:
        again(_within, LONGEST_TRY_S, partial(_send_once, block, notice, config))
    except Exception as error:  # of whatever client
        raise TransientError(_words(error)) from error


def _send_once(name: str, notice: Notice, config: NoticeConfig) -> None:
    # Loaded for each try: a Webhook block cannot be called twice.
    block: Any = Block.load(name)
    if isinstance(block, EmailServerCredentials):
        _mail(block, notice, config)
    elif isinstance(block, Webhook):
        answer: Any = run_coro_as_sync(block.call(as_json(notice)))
        answer.raise_for_status()
    else:
        with block.raise_on_failure():
            block.notify(as_text(notice), notice.subject)


def _mail(block: EmailServerCredentials, notice: Notice, config: NoticeConfig) -> None:
    message = email(notice, config.email_from or str(block.username), config.email_to)
    with block.get_server() as server:
        if refused := server.send_message(message):
            raise smtplib.SMTPRecipientsRefused(refused)


def email(notice: Notice, sender: str, receivers: list[str]) -> EmailMessage:
    """The message as plain text and HTML, with the plot in it, which mail programs offer as a file too."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = notice.subject, sender, ", ".join(receivers)
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message.set_content(as_text(notice))
    plot = make_msgid(domain="plot") if notice.plot else ""
    message.add_alternative(as_html(notice, f"cid:{plot[1:-1]}" if plot else ""), subtype="html")
    if notice.plot:
        page: Any = message.get_payload()[-1]  # type: ignore[index]
        page.add_related(
            notice.plot.read_bytes(), "image", "png", cid=plot, filename=notice.plot.name, disposition="inline"
        )
    return message


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do the work in a thread that is left to itself when it takes longer: smtplib would wait for ever.

    Raises:
        TimeoutError: it took longer.
    """
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True, name="notice")
    thread.start()
    thread.join(seconds)
    if not ended:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if ended[0] is not None:
        raise ended[0]


def _can_help(error: BaseException) -> bool:
    """Whether trying again may help: not where the server has understood and refuses."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 425, 429)
    return not isinstance(error, smtplib.SMTPAuthenticationError | smtplib.SMTPRecipientsRefused | ValueError)


def _words(error: Exception) -> str:
    """What was wrong, in a line, without addresses: that of a webhook is its secret."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"the server answered {error.response.status_code} {error.response.reason_phrase}".strip()
    # A NotificationError holds the log of what it tried instead of a message.
    said = str(getattr(error, "log", "") or error)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return re.sub(r"\w+://\S+", "(address)", lines[-1]) if lines else type(error).__name__
