"""A real Prefect server and worker for all end-to-end tests, in a folder of their own."""

import time
from pathlib import Path

import httpx
import pytest

from deployments.local import Local

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SMALL = {
    "model": {"name": "tiny:llama-3"},
    "split": {"reworded": 1.0, "dev": 0.2, "studied": 0.15, "unseen": 0.15},
    "pretrain": {"enabled": False},
    "finetune": {"epochs": 1, "learning_rate": 0.001, "max_length": 256, "lora": {"r": 4, "alpha": 8}, "threads": 1},
    "evaluation": {"embedder": "hashed:char-ngrams", "max_new_tokens": 8, "limit": 8, "threads": 1},
    "serve": {"enabled": False},
}


class Prefect:
    """A local Prefect with the shipped deployments, and a way to run them."""

    def __init__(self, local, port):
        self.local = local
        self.port = port
        self.api = f"http://127.0.0.1:{port}/api"

    def start(self, deployment="demo-korean", /, **parameters):
        """Start a run of a deployment, of the main flow unless one is named (`flow/deployment`); nothing is awaited."""
        flow, _, name = deployment.rpartition("/")
        found = self.ask("GET", f"/deployments/name/{flow or 'domain-adaptation'}/{name}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.ask("POST", f"/deployments/{found['id']}/create_flow_run", json=body)["id"]

    def ask(self, method, path, **more):
        """One request, again while the server is too busy (503), as Prefect's own client does."""
        for _ in range(20):
            answer = httpx.request(method, f"{self.api}{path}", timeout=60, **more)
            if answer.status_code != 503:
                break
            time.sleep(1)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def state(self, run_id):
        return self.ask("GET", f"/flow_runs/{run_id}")["state"]

    def wait(self, run_id, seconds=240):
        deadline = time.monotonic() + seconds
        while (state := self.state(run_id))["type"] not in FINAL:
            assert time.monotonic() < deadline, (state, self.log(run_id)[-3000:])
            time.sleep(0.5)
        return state

    def run(self, deployment="demo-korean", /, **parameters):
        run_id = self.start(deployment, **parameters)
        return run_id, self.wait(run_id)

    def completed(self, deployment="demo-korean", /, **parameters):
        """A run, once it is completed, as the server tells of it."""
        run_id, state = self.run(deployment, **parameters)
        assert state["type"] == "COMPLETED", state["message"]
        return self.ask("GET", f"/flow_runs/{run_id}")

    def log(self, run_id):
        """The run's log as its page shows it; what was logged last arrives a moment later."""
        time.sleep(2)
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.ask("POST", "/logs/filter", json=body))

    def artifacts(self, run_id):
        body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
        found = self.ask("POST", "/artifacts/filter", json=body)
        return {artifact["key"]: artifact for artifact in found}

    def events(self, name):
        """Names of the events about an endpoint, oldest first."""
        resource = {"id": [f"prefect-finetune.endpoint.{name}"]}
        found = self.ask("POST", "/events/filter", json={"filter": {"resource": resource, "order": "ASC"}})
        return [event["event"] for event in found["events"]]

    def folder(self, run_id) -> Path:
        return self.local.store / "runs" / run_id


@pytest.fixture(scope="session")
def prefect(tmp_path_factory):
    local = Local(tmp_path_factory.mktemp("local"))
    try:
        found = local.up()
        local.apply(found.port)
        yield Prefect(local, found.port)
    finally:
        local.down()


@pytest.fixture
def glossary(tmp_path):
    """Sources that no other test has, so that nothing comes from the store."""
    return {"terms": [{"path": "sample:trade_en/terms", "limit": 60}], "domain": tmp_path.name}
