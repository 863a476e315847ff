"""The watcher over the real vLLM (`make vllm`): its counters under load, and a hung engine that says 200."""

import contextlib
import os
import signal
import threading
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from flows.base_models.resolve import BaseModelConfig, resolve
from flows.progress import silent
from flows.serving import history, metrics, probe, records
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.variants.common import CHECKOUT
from flows.serving.watch import watch
from tests.serving.world import NOON

PYTHON = CHECKOUT / "build" / "vllm" / "bin" / "python"
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not PYTHON.exists(), reason="no vLLM: `make vllm` installs it"),
]


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm") / "endpoints"
    # The tiny models' heads are too small for vLLM on a CPU.
    model = Path(resolve(BaseModelConfig(name="packaged:SmolLM2-135M-Instruct"), models).path)
    options = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "cpu_kv_cache_gib": 1}
    config = ServeConfig(name="busy", variant="vllm", vllm=options, startup_budget_s=300)
    start_endpoint(config, model, folder, silent)
    yield folder
    stop_endpoint("busy", folder)


@pytest.fixture
def one(folder):
    """Passes a minute apart, on a clock that goes on from test to test."""
    past = history.load(folder, "busy")
    now = [past.samples[-1].at if past.samples else NOON.timestamp()]

    def look():
        now[0] += 60
        changes = watch(folder, NOON + timedelta(seconds=now[0] - NOON.timestamp()))
        return [change.what for change in changes]

    look()
    return look


def of(folder):
    return records.load(folder, "busy"), history.load(folder, "busy")


def ask(endpoint, tokens):
    body = {"model": endpoint.model, "prompt": "a b c", "max_tokens": tokens, "ignore_eos": True}
    httpx.post(f"{endpoint.url}/completions", json=body, timeout=120, trust_env=False).raise_for_status()


def test_what_has_answered_others_is_not_asked(folder, one):
    endpoint, _ = of(folder)
    one()
    before = metrics.read(endpoint)
    assert one() == []
    assert metrics.read(endpoint).succeeded == before.succeeded + 1, "the watcher's own question counts as one"
    assert of(folder)[1].samples[-1].answered == 0
    assert of(folder)[1].samples[-1].tokens_per_s > 0
    ask(endpoint, 4)
    before = metrics.read(endpoint)
    assert one() == []
    assert metrics.read(endpoint).succeeded == before.succeeded
    assert of(folder)[1].samples[-1].answered == 1


def test_an_engine_at_work_is_busy(folder, one, monkeypatch):
    endpoint, _ = of(folder)
    monkeypatch.setattr(probe, "GENERATION_TIMEOUT_S", 0.05)
    # So long that none is answered before the look: who has answered others is not asked.
    users = [threading.Thread(target=ask, args=(endpoint, 150)) for _ in range(6)]
    for user in users:
        user.start()
    while (seen := metrics.read(endpoint)) is None or seen.running < 4:
        pass
    assert one() == ["degraded"]
    assert of(folder)[1].why.startswith("Busy, not stuck: running requests ")
    for user in users:
        user.join()
    monkeypatch.undo()
    assert one() == ["healthy"]


def test_a_hung_engine_is_unhealthy_though_its_health_path_says_200(folder, one, monkeypatch):
    endpoint, _ = of(folder)
    monkeypatch.setattr(probe, "GENERATION_TIMEOUT_S", 2)
    engine = [pid for pid in process.members(endpoint.process) if pid != endpoint.process.pid and is_engine(pid)]
    assert engine
    for pid in engine:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert [one(), one(), one()] == [[], ["degraded"], ["unhealthy"]]
        assert httpx.get(endpoint.ready_url, trust_env=False).status_code == 200
        assert of(folder)[1].why.startswith("Stuck, not busy: running requests ")
        assert "steps of its engine meanwhile 0." in of(folder)[1].why
    finally:
        for pid in engine:
            os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    assert [one(), one()] == [[], ["healthy"]]
    assert of(folder)[1].state is State.HEALTHY


def is_engine(pid):
    with contextlib.suppress(psutil.Error):
        return "EngineCore" in " ".join([psutil.Process(pid).name(), *psutil.Process(pid).cmdline()])
    return False
