"""New data starts a run, on a real Prefect."""

import os
import time

import pytest

pytestmark = pytest.mark.end_to_end

TARGET = "gc-store/local"  # a dry run, done in a moment


def test_each_state_of_the_data_starts_one_run(prefect, tmp_path):
    data = tmp_path / "data"
    data.mkdir()

    def look():
        return prefect.run("watch-data/every-ten-minutes", deployment=TARGET, places=[str(data)], settle_s=0.2)

    _, state = look()
    assert (state["type"], state["message"]) == ("COMPLETED", "There is no data yet, so nothing is started.")
    (data / "terms.csv").write_text("question,answer\nWhat is FOB?,Free on board.\n")
    _, state = look()
    assert state["message"].startswith(f"1 added (terms.csv): started {TARGET} as "), state
    [started] = _runs(prefect)
    assert started["name"] in state["message"]
    assert prefect.wait(started["id"])["type"] == "COMPLETED"
    _, state = look()
    assert state["message"].startswith(f"Nothing new in 1 file since {started['name']}")
    os.utime(data / "terms.csv", (1, 1))
    _, state = look()
    assert state["message"].startswith("Only times have changed"), state
    assert len(_runs(prefect)) == 1
    (data / "terms.csv").write_text("question,answer\nWhat is CIF?,Cost, insurance, freight.\n")
    _, state = look()
    assert state["message"].startswith("1 changed (terms.csv): started"), state
    second = next(run for run in _runs(prefect) if run["id"] != started["id"])
    event = _event(prefect, second["id"])
    assert event["payload"]["changed"] == [str(data / "terms.csv")]
    assert event["payload"]["places"] == [str(data)]


def test_a_deployment_that_is_not_there_is_refused(prefect):
    _, state = prefect.run("watch-data/every-ten-minutes", deployment="domain-adaptation/no-such")
    assert state["type"] == "FAILED"
    assert state["message"].startswith("deployment: there is no deployment 'domain-adaptation/no-such'.")
    _, state = prefect.run("watch-data/every-ten-minutes", deployment="domain-adaptation/nightly")
    assert state["message"].startswith("places: domain-adaptation/nightly names no data that can change, only samples.")


def _runs(prefect):
    """The runs of the target that data has started."""
    body = {"flows": {"name": {"any_": ["gc-store"]}}}
    found = prefect.ask("POST", "/flow_runs/filter", json=body)
    return [run for run in found if str(run["idempotency_key"]).startswith("data-")]


def _event(prefect, run_id):
    """The event that tells of the data for which the run was started; it arrives a moment later."""
    deadline = time.monotonic() + 30
    while True:
        body = {"filter": {"event": {"name": ["data.changed"]}, "order": "DESC"}}
        found = prefect.ask("POST", "/events/filter", json=body)["events"]
        for event in found:
            if event["payload"]["run_id"] == run_id:
                return event
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
