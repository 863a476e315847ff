import socket
import time

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect_email import EmailServerCredentials

from flows.errors import TransientError
from flows.reporting import notice as notices
from flows.reporting.notice_config import NoticeConfig
from flows.stages import notice_send
from tests.reporting.conftest import make_report
from tests.sinks import mail_server, web_server

PNG = b"\x89PNG plot"
CONFIG = NoticeConfig(email_to=["team@field.example", "lead@field.example"], email_from="runs@field.example")


@pytest.fixture
def blocks(monkeypatch):
    """Blocks by name, in place of those of a Prefect server."""
    known = {}
    monkeypatch.setattr(notice_send.Block, "load", lambda name: known[name]())
    monkeypatch.setattr(notice_send, "FIRST_PAUSE_S", 0.01)
    return known


@pytest.fixture
def notice(tmp_path):
    (tmp_path / "truthfulness_result.png").write_bytes(PNG)
    return notices.of_report(make_report(title="무역, demo"), tmp_path)


@pytest.fixture
def hook():
    with web_server() as found:
        yield found


def mail_block(port, **more):
    return EmailServerCredentials(smtp_server="127.0.0.1", smtp_port=port, smtp_type="INSECURE", **more)


def test_a_mail_has_text_html_and_the_plot(blocks, notice):
    with mail_server() as (box, port):
        blocks["mail/team"] = lambda: mail_block(port)
        notice_send.send("mail/team", notice, CONFIG)
    [(receivers, mail)] = box.mails
    assert receivers == ["team@field.example", "lead@field.example"]
    assert (mail["From"], mail["To"]) == ("runs@field.example", "team@field.example, lead@field.example")
    assert mail["Subject"] == "무역, demo: the gate passed (+0.24)"
    assert mail.get_body(("plain",)).get_content().splitlines() == notices.as_text(notice).splitlines()
    page = mail.get_body(("html",)).get_content()
    [picture] = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert picture.get_content() == PNG
    assert picture.get_filename() == "truthfulness_result.png"
    assert f'src="cid:{picture["Content-ID"][1:-1]}"' in page


def test_a_webhook_that_stumbles_is_called_again(blocks, notice, hook):
    blocks["webhook/ci"] = lambda: Webhook(url=hook.url)
    hook.statuses = [503, 500]
    notice_send.send("webhook/ci", notice, CONFIG)
    assert [body["event"] for body in hook.bodies] == ["succeeded"] * 3
    assert hook.bodies[-1]["semscore"]["reworded"]["n"] == 57


def test_a_block_that_can_notify_gets_subject_and_text(blocks, notice, hook):
    template = {"text": "{{subject}}\n{{body}}"}
    blocks["custom-webhook/chat"] = lambda: CustomWebhookNotificationBlock(
        name="chat", url=hook.url, json_data=template
    )
    notice_send.send("custom-webhook/chat", notice, CONFIG)
    assert hook.bodies == [{"text": f"{notice.subject}\n{notices.as_text(notice)}"}]


def test_a_refusal_is_told_at_once_and_without_the_address(blocks, notice, hook):
    blocks["webhook/ci"] = lambda: Webhook(url=hook.url)
    hook.statuses = [404]
    with pytest.raises(TransientError) as caught:
        notice_send.send("webhook/ci", notice, CONFIG)
    assert str(caught.value) == "the server answered 404 Not Found"
    assert len(hook.bodies) == 1


def test_who_is_not_there_is_named(blocks, notice):
    with mail_server() as (box, port):
        blocks["mail/team"] = lambda: mail_block(port)
        with pytest.raises(TransientError, match="nobody@field.example.*no such mailbox"):
            notice_send.send("mail/team", notice, CONFIG.model_copy(update={"email_to": ["nobody@field.example"]}))
    assert box.mails == []


def test_nothing_listens(blocks, notice):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks["mail/team"] = lambda: mail_block(port)
    with pytest.raises(TransientError, match="Connection refused"):
        notice_send.send("mail/team", notice, CONFIG)


def test_a_server_that_never_answers_does_not_hold_the_run(blocks, notice, monkeypatch):
    monkeypatch.setattr(notice_send, "LONGEST_TRY_S", 0.2)
    monkeypatch.setattr(notice_send, "LONGEST_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        blocks["mail/team"] = lambda: mail_block(silent.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(TransientError, match="no answer within 0.2 s"):
            notice_send.send("mail/team", notice, CONFIG)
    assert time.monotonic() - started < 5


def test_addresses_are_left_out_of_what_is_said():
    error = RuntimeError("cannot post\nto https://hooks.example/T0/SECRET now")
    assert notice_send._words(error) == "to (address) now"
    assert notice_send._words(RuntimeError()) == "RuntimeError"
