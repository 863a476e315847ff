import logging
from types import SimpleNamespace
from uuid import UUID

import pytest
from prefect.states import Completed, Failed

from flows.errors import TransientError
from flows.reporting.notice_config import NoticeConfig
from flows.reporting.write import write_report
from flows.stages import notices
from flows.stages.report import report_of
from flows.store.files import read_json
from flows.store.layout import Store
from tests.reporting.conftest import make_report

RUN = UUID("0192aa10-7c1e-7b90-a6a2-0a53b1e0d0c1")
FLOW = SimpleNamespace(name="domain-adaptation")


@pytest.fixture
def sent(monkeypatch):
    """What was sent: (block, notice); blocks of the type `down` deliver nothing."""
    messages = []

    def send(block, notice, config):
        if block.startswith("down/"):
            raise TransientError("no answer within 20 s")
        messages.append((block, notice))

    monkeypatch.setattr(notices, "send", send)
    monkeypatch.setattr(notices, "flow_run_logger", lambda run, flow: logging.getLogger("notices"))
    return messages


def a_run(store, blocks, **more):
    notify = {"blocks": blocks, **more}
    options = {"title": "Trade", "store": str(store), "notify": notify}
    return SimpleNamespace(id=RUN, name="lucid-heron", parameters={"run": options})


def test_a_run_that_is_started_again_tells_nothing_twice(tmp_path, sent):
    folder = Store(str(tmp_path)).run(str(RUN))
    write_report(make_report(), folder)
    run = a_run(tmp_path, ["slack-webhook/team", "webhook/ci"])
    notices.tell(FLOW, run, Completed(message="The gate passed"))
    notices.tell(FLOW, run, Completed(message="The gate passed"))
    assert [(block, notice.event) for block, notice in sent] == [
        ("slack-webhook/team", "succeeded"),
        ("webhook/ci", "succeeded"),
    ]
    assert [one["delivered"] for one in read_json(folder / notices.TOLD)] == [True, True]


def test_what_could_not_be_delivered_is_in_log_and_report_and_tried_again_at_the_next_start(tmp_path, sent, caplog):
    folder = Store(str(tmp_path)).run(str(RUN))
    write_report(make_report(), folder)
    run = a_run(tmp_path, ["down/mail", "webhook/ci"])
    notices.tell(FLOW, run, Completed(message="The gate passed"))
    [warning] = report_of(folder).warnings
    assert warning == "The message of this run could not be delivered through down/mail: no answer within 20 s."
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [warning]
    assert warning in (folder / "report.html").read_text("utf-8")
    assert [block for block, _ in sent] == ["webhook/ci"]
    notices.tell(FLOW, run, Completed(message="The gate passed"))
    assert [block for block, _ in sent] == ["webhook/ci"]
    assert [one["block"] for one in read_json(folder / notices.TOLD)] == ["down/mail", "webhook/ci", "down/mail"]


def test_a_failure_is_told_and_another_one_of_the_same_run_too(tmp_path, sent):
    run = a_run(tmp_path, ["webhook/ci"])
    for cause in ("finetune: killed", "finetune: killed", "evaluate: no judge"):
        notices.tell(FLOW, run, Failed(message=f"{cause}\nmore"))
    assert [(notice.event, notice.line) for _, notice in sent] == [
        ("failed", "finetune: killed (and 1 more line)"),
        ("failed", "evaluate: no judge (and 1 more line)"),
    ]


def test_a_run_whose_parameters_were_refused_tells_too(tmp_path, sent):
    run = a_run(tmp_path, ["webhook/ci"])
    run.parameters["run"]["surplus"] = 1
    notices.tell(FLOW, run, Failed(message="Validation of flow parameters failed with error: run.surplus"))
    assert [notice.subject for _, notice in sent] == ["Trade: failed"]


def test_only_the_events_that_are_asked_for_are_told(tmp_path, sent):
    run = a_run(tmp_path, ["webhook/ci"], events=["gate-failed"])
    notices.tell(FLOW, run, Failed(message="no"))
    notices.tell(FLOW, run, Completed(message="Trained and not evaluated"))
    assert sent == []
    notices.tell(FLOW, a_run(tmp_path, ["webhook/ci"]), Completed(name="Skipped", message="nothing has changed"))
    assert sent == [], "that nothing has changed is told only when asked for"
    asked = a_run(tmp_path, ["webhook/ci"], events=["nothing-changed"])
    notices.tell(FLOW, asked, Completed(name="Skipped", message="nothing has changed since brave-otter"))
    assert [notice.line for _, notice in sent] == ["nothing has changed since brave-otter"]


def test_nobody_is_told_of_a_dry_run_or_where_nobody_is_named(tmp_path, sent):
    dry = a_run(tmp_path, ["webhook/ci"])
    dry.parameters["dry_run"] = True
    notices.tell(FLOW, dry, Completed(message="Would run: nothing"))
    notices.tell(FLOW, a_run(tmp_path, []), Completed(message="done"))
    notices.tell(FLOW, SimpleNamespace(id=RUN, name="a", parameters={}), Completed(message="done"))
    notices.tell(FLOW, SimpleNamespace(id=RUN, name="a", parameters={"run": {"notify": 3}}), Failed(message="bad"))
    assert sent == []


def test_a_run_without_a_report_says_how_it_ended(tmp_path, sent):
    notices.tell(FLOW, a_run(tmp_path, ["webhook/ci"]), Completed(message="5 stages are done"))
    assert [(notice.subject, notice.line) for _, notice in sent] == [("Trade: done", "5 stages are done")]


def test_a_store_that_can_be_none_keeps_no_message_back(tmp_path, sent):
    (tmp_path / "file").write_text("no folder")
    notices.tell(FLOW, a_run(tmp_path / "file", ["webhook/ci"]), Failed(message="store: no"))
    assert [notice.event for _, notice in sent] == ["failed"]


def test_the_blocks_that_a_run_names_must_be_there(monkeypatch):
    from flows.stages import notice_blocks

    def block(name):
        kind = name.partition("/")[0]
        able = ["notify"] if kind == "slack-webhook" else []
        found = SimpleNamespace(
            block_type=SimpleNamespace(slug=kind), block_schema=SimpleNamespace(capabilities=able), data={}
        )
        return None if name.endswith("/none") else found

    monkeypatch.setattr(notice_blocks, "block_document", block)
    named = ["slack-webhook/team", "webhook/ci", "secret/key", "webhook/none", "email-server-credentials/mail"]
    wrong = notice_blocks.notice_problems(NoticeConfig(blocks=named))
    assert [line[:36] for line in wrong] == [
        "run.notify.blocks[2]: the block 'sec",
        "run.notify.blocks[3]: there is no bl",
        "run.notify.email_to: no address is g",
        "run.notify.email_from: give the send",
    ]
    good = NoticeConfig(blocks=["email-server-credentials/mail"], email_to=["a@b.c"], email_from="d@e.f")
    assert notice_blocks.notice_problems(good) == []
