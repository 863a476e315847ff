"""The judge over real HTTP: what it is asked, what counts as a verdict, and what becomes of each fault."""

import json
import re
import socket

import pytest

from flows.errors import EvaluationError, TransientError
from flows.evaluation import judge as judging
from flows.evaluation.config import JudgeEndpoint
from flows.evaluation.judge import Verdict, check, judge
from tests.evaluation.fake_judge import FakeJudge, verdict

KEY = "sk-very-secret-4711"
PROSE = "The reply is quite good, I would give it 4/5."


@pytest.fixture
def fake():
    server = FakeJudge(["judge-model", "other"])
    yield server
    server.close()


@pytest.fixture
def endpoint(fake, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return JudgeEndpoint(base_url=fake.url, model="judge-model", api_key_env="JUDGE_KEY")


@pytest.fixture
def ask(endpoint, row):
    """Verdicts on so many replies."""

    def _ask(count=1, language="en", done=lambda number: None):
        rows = [row(n, question=f"Question {n}?", answer=f"Target {n}.") for n in range(count)]
        return judge(endpoint, language, rows, [f"Reply {n}." for n in range(count)], done)

    return _ask


def test_after_a_failure_only_the_missing_verdicts_are_asked_for(fake, endpoint, row, tmp_path):
    rows = [row(n, question=f"Question {n}?", answer=f"Target {n}.") for n in range(12)]
    replies, kept = [f"Reply {n}." for n in range(12)], tmp_path / "verdicts.jsonl"
    fake.reply = lambda request: PROSE if "Reply 3." in words(request) else verdict(4)
    judge(endpoint, "en", rows[:6], replies[:6], lambda number: None, kept)
    fake.forever = 401
    with pytest.raises(EvaluationError):
        judge(endpoint, "en", rows, replies, lambda number: None, kept)
    assert len(kept.read_text().splitlines()) == 7, "six answers, and the second one on what could not be read"
    with kept.open("a") as stream:
        stream.write('["torn", {"rea')
    fake.forever, fake.requests[:] = None, []
    found = judge(endpoint, "en", rows, replies, lambda number: None, kept)
    assert len(fake.requests) == 6
    assert [one.score if one else None for one in found] == [None if n == 3 else 4 for n in range(12)]


def words(request):
    return "\n".join(message["content"] for message in request["messages"])


def test_verdicts_come_in_the_order_of_the_rows(fake, ask):
    fake.reply = lambda request: verdict(1 + int(re.findall(r"Reply (\d+)\.", words(request))[0]) % 5)
    counts = []
    found = ask(24, done=counts.append)
    assert [verdict.score for verdict in found] == [1 + n % 5 for n in range(24)]
    assert found[0].reason == "It says so."
    assert counts == list(range(1, 25))
    assert fake.keys == {f"Bearer {KEY}"}


def test_the_request_holds_rubric_target_and_form_and_no_hint_of_the_model(fake, endpoint, row):
    asked = row(0, question="What is demurrage?", answer="A charge for delay.")
    for _ in range(2):
        judge(endpoint, "en", [asked], ["A fee."], lambda number: None)
    request, other = fake.requests
    assert request == other, "the judge could tell base and trained model apart"
    assert (request["model"], request["temperature"]) == ("judge-model", 0)
    form = request["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    schema = form["json_schema"]["schema"]
    assert list(schema["properties"]) == ["reason", "score"]
    assert schema["properties"]["score"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert schema["required"] == ["reason", "score"]
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    said = words(request)
    assert "What is demurrage?" in said
    assert "Reference answer:\nA charge for delay." in said
    assert "Reply to grade:\nA fee." in said
    assert "5: says all that the reference says" in said
    assert "{" not in said
    assert not [hint for hint in ("base", "trained", "fine-tuned", "before", "after", "r0") if hint in said]


def test_a_korean_judge_reads_korean(fake, ask):
    assert ask(language="ko")[0].score == 5
    assert "정답:\nTarget 0." in words(fake.requests[0])


@pytest.mark.parametrize(
    "unreadable",
    [
        PROSE,
        "4/5",
        "4",
        "",
        None,
        verdict(7),
        verdict(0),
        verdict("4"),
        verdict(3.5),
        verdict(True),
        verdict(None),
        '{"score": 4}',
        f"```json\n{verdict(4)}\n```",
        verdict(4)[:-1],
        "[" * 100_000,
    ],
    ids=lambda text: str(text)[:20],
)
def test_what_cannot_be_read_is_asked_again_once_and_then_is_no_verdict(fake, ask, unreadable):
    fake.reply = lambda request: unreadable
    assert ask() == [None]
    assert len(fake.requests) == 2
    assert fake.requests[0] == fake.requests[1]


def test_a_second_answer_that_can_be_read_counts(fake, ask):
    answers = [PROSE, verdict(4)]
    fake.reply = lambda request: answers.pop(0)
    assert ask() == [Verdict(reason="It says so.", score=4)]


def test_an_answer_without_choices_is_no_verdict(fake, ask):
    fake.forever = b'{"error": "content filter"}'
    assert ask() == [None]


@pytest.mark.parametrize("fault", [500, 503, 429, 408, 409, "hang up"])
def test_what_passes_is_waited_for(fake, ask, fault, monkeypatch):
    monkeypatch.setattr("flows.endpoint_client.retry.FIRST_PAUSE_S", 0.01)
    fake.faults = [fault, fault]
    assert ask() == [Verdict(reason="It says so.", score=5)]
    assert len(fake.requests) == 3


@pytest.mark.parametrize("status", [500, 503, 429, 408, 409])
def test_what_does_not_pass_may_be_retried_later(fake, ask, status):
    fake.forever, fake.message = status, f"overloaded, {KEY}"
    with pytest.raises(TransientError, match=fake.url) as refused:
        ask()
    assert len(fake.requests) == 5
    assert str(status) in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_judge_that_hangs_up_may_be_retried_later(fake, ask, monkeypatch):
    monkeypatch.setattr("flows.endpoint_client.retry.FIRST_PAUSE_S", 0.01)
    fake.forever = "hang up"
    with pytest.raises(TransientError, match=f"{fake.url} stopped answering"):
        ask()
    assert len(fake.requests) == 5


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, "the API key is refused"), (403, "not for"), (404, "'judge-model'"), (400, "not for"), (422, "not for")],
)
def test_a_refusal_is_said_at_once_and_without_the_key(fake, ask, status, why):
    fake.forever, fake.message = status, f"not for {KEY}"
    with pytest.raises(EvaluationError, match=r"^evaluation\.judge: ") as refused:
        ask(200)
    assert why in str(refused.value)
    assert fake.url in str(refused.value)
    assert KEY not in str(refused.value)
    assert len(fake.requests) < 50, "a refusal must not be asked for 200 times"


@pytest.mark.parametrize("page", [b"<html>Welcome</html>", b"[]", b"null", b"{torn"])
def test_a_url_that_is_no_such_api_is_said(fake, endpoint, ask, page):
    fake.forever = page
    for use in (ask, lambda: check(endpoint)):
        with pytest.raises(EvaluationError, match=f"{fake.url} answers, but not as an OpenAI-compatible API"):
            use()


def test_the_check_passes_a_judge_that_is_there(fake, endpoint):
    check(endpoint)
    assert fake.keys == {f"Bearer {KEY}"}
    check(endpoint, key="another")
    assert "Bearer another" in fake.keys
    check(endpoint.model_copy(update={"api_key_env": ""}))
    assert "Bearer none" in fake.keys


def test_the_check_names_the_models_there_are(endpoint):
    with pytest.raises(EvaluationError, match=r"^evaluation\.judge: .* has no model 'big'. It has: judge-model, other"):
        check(endpoint.model_copy(update={"model": "big"}))


@pytest.mark.parametrize(
    ("status", "why"), [(401, "the API key is refused"), (403, "not for"), (404, "404"), (500, "500")]
)
def test_the_check_says_why_a_judge_refuses_and_not_the_key(fake, endpoint, status, why):
    fake.forever, fake.message = status, f"not for {KEY}"
    with pytest.raises(EvaluationError, match=r"^evaluation\.judge: .* refuses us .*OpenAI Endpoint block") as refused:
        check(endpoint)
    assert why in str(refused.value)
    assert fake.url in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_judge_that_is_not_there_is_found_before_training(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(EvaluationError) as refused:
            check(JudgeEndpoint(base_url=url, model="m"), KEY)
    assert str(refused.value) == (
        f"evaluation.judge: the judge at {url} does not answer (Connection error). Start it, correct the OpenAI "
        "Endpoint block, or leave evaluation.judge empty for the stand-in."
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_prompt_takes_question_target_and_reply(fake, ask, language):
    ask(language=language)
    said = words(fake.requests[0])
    assert all(part in said for part in ("Question 0?", "Target 0.", "Reply 0."))
    assert [line[:2] for line in said.splitlines()[-5:]] == ["1:", "2:", "3:", "4:", "5:"]


def test_the_form_of_a_verdict_is_the_schema_that_is_asked_for():
    own = Verdict.model_json_schema()
    assert list(own["properties"]) == list(judging.SCHEMA["properties"])
    assert own["properties"]["score"]["enum"] == judging.SCHEMA["properties"]["score"]["enum"]
    assert json.loads(verdict(3)).keys() == judging.SCHEMA["properties"].keys()
