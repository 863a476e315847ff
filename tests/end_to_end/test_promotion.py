"""Promotions through the deployments: what the live endpoint must show; the old model outlives every failure."""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter

import httpx
import pandas as pd
import psutil
import pytest

from deployments.local import CHECKOUT
from flows.serving import records
from flows.serving.ask import ask
from flows.serving.front import haproxy
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from tests.end_to_end.test_runs import children, no_traceback_of_ours, wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]

QUESTIONS = {f"What is part {n} of the contract?": f"Part {n} says who pays for good number {n}." for n in range(12)}
SERVER = f"{sys.executable} {CHECKOUT}/tests/serving/canned_model.py {{model_path}} {{port}}"


def model(folder, answers, delay_s=0.0, fails=()):
    """A model folder that answers so."""
    folder.mkdir()
    (folder / "answers.json").write_text(json.dumps({"answers": answers, "delay_s": delay_s, "fails": fails}))
    return str(folder)


def serve(name, **promotion):
    command = {"command_line": SERVER, "health_path": "/health"}
    return {
        "name": name,
        "variant": "command",
        "command": command,
        "served_model_name": "fake",
        "promotion": promotion,
    }


@pytest.fixture
def good(tmp_path):
    return model(tmp_path / "good", QUESTIONS)


@pytest.fixture
def evaluated(prefect, tmp_path):
    """Id of a run whose evaluation, of a model that answers everything rightly, lies in the store."""
    run_id = f"evaluated-{tmp_path.name[-20:].replace('_', '-')}"
    folder = tmp_path / "evaluation"
    folder.mkdir()
    rows = [
        {
            "id": f"row-{n}",
            "group": f"part-{n}",
            "rung": "reworded",
            "question": question,
            "instruction": "Answer the question.",
            "target": answer,
            "trained_semscore": 1.0,
        }
        for n, (question, answer) in enumerate(QUESTIONS.items())
    ]
    pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
    settings = {"evaluation": {"embedder": "hashed:char-ngrams", "max_new_tokens": 32}}
    (folder / "manifest.json").write_text(json.dumps({"made_from": {"config": settings}}))
    place = prefect.folder(run_id)
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"artifacts": {"evaluate": {"path": str(folder)}}}))
    return run_id


@pytest.fixture
def endpoints(prefect):
    """The folder of records; every endpoint is stopped in the end."""
    folder = prefect.local.store / "endpoints"
    yield folder
    for name in records.names(folder):
        stop_endpoint(name.partition(".")[0], folder)


def servers(folder):
    return [one for one in children(folder) if "canned_model" in " ".join(one.cmdline())]


def promotion_page(prefect, run_id):
    return prefect.artifacts(run_id)["promotion"]["data"]


def test_a_bad_model_is_refused_and_the_good_one_goes_on_serving(prefect, good, evaluated, endpoints, tmp_path):
    run_id, state = prefect.run(
        "serve-variant/local", model={"folder": good}, serve=serve("a", questions_of_run=evaluated)
    )
    assert state["type"] == "COMPLETED", state["message"]
    assert "| healthy | passed |" in promotion_page(prefect, run_id)
    first = records.load(endpoints, "a")

    bad = model(tmp_path / "bad", dict.fromkeys(QUESTIONS, "qqq zzz"))
    run_id, state = prefect.run("serve-variant/local", model={"folder": bad}, serve=serve("a"))
    assert state["type"] == "FAILED"
    assert "The promotion is refused. not worse than the current model: SemScore " in state["message"]
    assert "against 1.000 of the model that serves now; it is proven to lose more than 0.050 (" in state["message"]
    assert "| not worse than the current model | **failed** |" in promotion_page(prefect, run_id)
    assert no_traceback_of_ours(prefect.log(run_id))
    assert records.load(endpoints, "a") == first
    assert records.names(endpoints).count("a.next") == 0
    assert servers(bad) == []
    assert ask(first, "What is part 3 of the contract?") == QUESTIONS["What is part 3 of the contract?"]

    better = model(tmp_path / "better", {**QUESTIONS, "more": "yes"})
    _, state = prefect.run("serve-variant/local", model={"folder": better}, serve=serve("a"))
    assert "(revision 2, came up in" in state["message"]
    assert servers(good) == []


def test_a_slow_candidate_is_refused_by_the_load_run(prefect, good, endpoints, tmp_path):
    prefect.run("serve-variant/local", model={"folder": good}, serve=serve("loaded", rows=0))
    slow = model(tmp_path / "slow", QUESTIONS, delay_s=0.4)
    load = {"rows": 0, "load_requests": 6, "load_concurrency": 2, "load_tolerance": 0.5}
    run_id, state = prefect.run("serve-variant/local", model={"folder": slow}, serve=serve("loaded", **load))
    assert state["type"] == "FAILED"
    assert "The promotion is refused. load run: load: the slowest first token" in state["message"]
    assert servers(slow) == []
    assert records.load(endpoints, "loaded").state is State.HEALTHY


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_person_decides_and_a_form_sent_as_it_was_is_no_yes(prefect, good, endpoints, tmp_path, answer):
    name = f"asked-{str(answer).lower()}"
    asked = serve(name, rows=0, approval=True)
    run_id = prefect.start("serve-variant/local", model={"folder": good}, serve=asked)
    wait_for(lambda: prefect.state(run_id)["type"] == "PAUSED", 60)
    assert records.load(endpoints, name) is None
    assert servers(good)
    form = {"run_input": {"comment": "looked at it"} | ({} if answer is None else {"approve": answer})}
    prefect.ask("POST", f"/flow_runs/{run_id}/resume", json=form)
    state = prefect.wait(run_id)
    if answer:
        assert state["type"] == "COMPLETED", state["message"]
        assert "- **approval**: yes: looked at it" in promotion_page(prefect, run_id)
    else:
        assert "The promotion is refused. approval: no: looked at it" in state["message"]
        assert records.load(endpoints, name) is None
        assert servers(good) == []


@pytest.mark.fault(
    "kill -9 of the flow in mid-promotion",
    expected="CRASHED; the old model goes on serving",
    action="the next pass of the watcher ends the candidate and forgets it",
)
def test_killed_or_cancelled_in_mid_promotion_the_old_one_serves_and_nothing_else_runs(
    prefect, good, evaluated, endpoints, tmp_path, seen
):
    prefect.run("serve-variant/local", model={"folder": good}, serve=serve("cut", questions_of_run=evaluated))
    first = records.load(endpoints, "cut")
    slow = model(tmp_path / "slow", QUESTIONS, delay_s=5)

    run_id = prefect.start("serve-variant/local", model={"folder": slow}, serve=serve("cut"))
    wait_for(lambda: (prefect.folder(run_id) / "promotion").exists())
    flow_run = wait_for(lambda: [one for one in psutil.process_iter() if run_id in environment_of(one)])
    seen.begin()
    for one in flow_run:
        os.kill(one.pid, signal.SIGKILL)
    crashed = prefect.wait(run_id)
    seen(f"{crashed['type']}. {crashed['message']}")
    assert crashed["type"] == "CRASHED"
    assert records.names(endpoints).count("cut.next") == 1
    prefect.run("watch-endpoints/every-minute")
    assert (servers(slow), records.names(endpoints).count("cut.next")) == ([], 0)

    run_id = prefect.start("serve-variant/local", model={"folder": slow}, serve=serve("cut"))
    wait_for(lambda: (prefect.folder(run_id) / "promotion").exists())
    prefect.ask("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING"}})
    assert prefect.wait(run_id)["type"] == "CANCELLED"
    wait_for(lambda: servers(slow) == [], 40)
    assert records.names(endpoints).count("cut.next") == 0
    assert records.load(endpoints, "cut") == first
    assert process.alive(first.process)


def environment_of(one):
    """The part of a process's environment that names its flow run."""
    try:
        return one.environ().get("PREFECT__FLOW_RUN_ID", "")
    except psutil.Error:
        return ""


@pytest.mark.fault(
    "two promotions at once",
    expected="the second waits for the first; both end well, one revision each",
    action="one server runs in the end",
)
def test_of_two_promotions_at_once_the_second_waits_for_the_first(prefect, good, endpoints, tmp_path, seen):
    other = model(tmp_path / "other", {**QUESTIONS, "more": "yes"})
    seen.begin()
    runs = [
        prefect.start("serve-variant/local", model={"folder": folder}, serve=serve("two", rows=0))
        for folder in (good, other)
    ]
    for run_id in runs:
        state = prefect.wait(run_id)
        assert state["type"] == "COMPLETED", state["message"]
    serving = records.load(endpoints, "two")
    seen("; ".join(sorted(prefect.state(run_id)["message"] for run_id in runs)))
    assert serving.revision == 2
    time.sleep(0.5)
    assert len(servers(good) + servers(other)) == 1


class Clients:
    """Somebody who goes on asking at the address of the name; what came back."""

    def __init__(self, url):
        self.url = url
        self.statuses = Counter()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _ask(self):
        messages = [{"role": "user", "content": "What do customers ask?"}]
        body = {"model": "fake", "messages": messages, "max_tokens": 9}
        while not self.over.wait(0.05):
            answer = httpx.post(f"{self.url}/chat/completions", json=body, timeout=30, trust_env=False)
            self.statuses[answer.status_code] += 1


@pytest.mark.skipif(not shutil.which("haproxy", path=haproxy.PLACES), reason="HAProxy is not installed: make front")
def test_traffic_moves_by_steps_and_comes_back_from_a_candidate_that_fails_it(prefect, good, endpoints, tmp_path):
    def settings(strategy):
        options = {"rows": 0, "strategy": strategy, "canary_steps": [20, 60], "step_s": 4}
        return serve("shared", **options) | {"front": {"enabled": True}}

    _, state = prefect.run("serve-variant/local", model={"folder": good}, serve=settings("canary"))
    assert state["type"] == "COMPLETED", state["message"]
    first = records.load(endpoints, "shared")
    bad = model(tmp_path / "bad", QUESTIONS, fails=["customers"])
    better = model(tmp_path / "better", {**QUESTIONS, "more": "yes"})
    best = model(tmp_path / "best", {**QUESTIONS, "more": "yes!"})

    with Clients(first.public_url) as clients:
        run_id, state = prefect.run("serve-variant/local", model={"folder": bad}, serve=settings("canary"))
        assert "The promotion is refused. canary: 20 % of the traffic: candidate " in state["message"]
        assert "| canary: 20 % of the traffic | **failed** |" in promotion_page(prefect, run_id)
        assert records.load(endpoints, "shared") == first
        assert servers(bad) == []
        failed = clients.statuses[500]
        assert 0 < failed < clients.statuses[200]

        run_id, state = prefect.run("serve-variant/local", model={"folder": better}, serve=settings("canary"))
        assert state["type"] == "COMPLETED", state["message"]
        steps = re.findall(
            r"canary: (\d+) % of the traffic\*\*: candidate (\d+) requests, 0 failed.* "
            r"the current model (\d+) requests, 0 failed",
            promotion_page(prefect, run_id),
        )
        assert [int(percent) for percent, _, _ in steps] == [20, 60]
        shares = [int(new) / (int(new) + int(old)) for _, new, old in steps]
        assert shares == [pytest.approx(0.2, abs=0.1), pytest.approx(0.6, abs=0.1)]

        run_id, state = prefect.run("serve-variant/local", model={"folder": best}, serve=settings("blue-green"))
        step = r"blue-green: 100 % of the traffic\*\*: .* the current model 0 requests"
        assert re.search(step, promotion_page(prefect, run_id))
    serving = records.load(endpoints, "shared")
    assert (serving.revision, serving.public_url) == (3, first.public_url)
    assert servers(good) == servers(better) == []
    assert clients.statuses == {200: clients.statuses[200], 500: failed}
