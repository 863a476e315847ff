"""The list of runs of a store in a bucket, read on any machine."""

import json

import pytest

from flows import list_runs as flow
from flows.reporting.runs import read_runs
from flows.stages import runs as page
from flows.store.files import write_json
from flows.store.opening import open_store
from tests.reporting.conftest import make_report


def end(store, run_id, day, **failure):
    """What a run leaves at its end: a report, or a failure."""
    created = f"2026-11-{day:02d}T08:00:00+00:00"
    told = {"run_name": f"run-{run_id}", "created": created, **failure}
    report = make_report(run_name=f"run-{run_id}", created=created).model_dump(mode="json")
    write_json(store.run(run_id) / ("failure.json" if failure else "report.json"), told if failure else report)
    write_json(store.run(run_id) / "progress.json", {})
    store.share_run(run_id)


def listed(store):
    return [(line.run_id, line.status) for line in read_runs(*store.ended_runs())]


def test_runs_of_all_machines_stand_in_the_list_of_each(machine):
    first, second = machine("first"), machine("second")
    end(first, "a", 1)
    end(second, "b", 2, message="finetune: out of memory")
    both = [("b", "failed"), ("a", "passed")]
    assert (listed(first), listed(second), listed(machine("third"))) == (both, both, both)
    assert not second.run("a").exists(), "the folder of a run is its own machine's"


def test_a_run_that_was_started_again_elsewhere_is_listed_as_it_ended_last(machine):
    first, second = machine("first"), machine("second")
    end(first, "a", 1, message="the machine was lost")
    assert listed(second) == [("a", "failed")]
    end(second, "a", 2)
    assert (listed(first), listed(second)) == ([("a", "passed")], [("a", "passed")])


def test_a_report_after_which_serving_failed_is_a_failure_on_every_machine(machine):
    first = machine("first")
    end(first, "a", 1)
    end(first, "a", 2, message="serve: no port")  # all of the run is shared again, the report last
    assert (listed(first), listed(machine("second"))) == ([("a", "failed")], [("a", "failed")])


def test_only_what_has_changed_is_read_again(machine, monkeypatch):
    first, second = machine("first"), machine("second")
    end(first, "a", 1)
    end(first, "b", 2)
    assert len(listed(second)) == 2
    asked = []
    real = second.bucket.read_all
    monkeypatch.setattr(second.bucket, "read_all", lambda names: asked.extend(names) or real(names))
    assert len(listed(second)) == 2
    assert asked == []
    end(first, "c", 3)
    assert listed(second)[0] == ("c", "passed")
    assert asked == ["runs/c/report.json"]


def test_a_run_that_was_removed_from_the_bucket_is_listed_nowhere(machine):
    first, second = machine("first"), machine("second")
    end(first, "a", 1)
    end(first, "b", 2)
    assert len(listed(second)) == 2
    first.bucket.delete(["runs/a/report.json"])
    assert listed(second) == [("b", "passed")]


@pytest.fixture
def shown(monkeypatch):
    """The artifacts, in place of a Prefect server."""
    found = {}
    for name in ("create_markdown_artifact", "create_image_artifact"):
        monkeypatch.setattr(page, name, lambda content, key, description: found.update({key: content}))
    return found


def test_the_flow_lists_a_bucket(machine, address, shown, monkeypatch, tmp_path):
    end(machine("first"), "a", 1)
    end(machine("second"), "b", 2, message="finetune: out of memory")
    machine("third")  # from here on this is our machine
    state = flow.list_runs.fn(store=f"s3://{address.bucket}/{address.prefix}")
    html = open_store(f"s3://{address.bucket}/{address.prefix}").root / "runs.html"
    assert state.message == f"2 runs: 1 passed, 1 failed. {html}"
    assert html.is_relative_to(tmp_path / "third")
    assert "run-a" in html.read_text("utf-8")
    assert "finetune: out of memory" in shown["runs"]


def test_a_bucket_that_does_not_answer_is_told(machine, address, monkeypatch):
    machine("first")
    told = []
    monkeypatch.setattr(flow, "failed", lambda error: told.append(str(error)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    flow.list_runs.fn(store=f"s3://{address.bucket}/{address.prefix}")
    assert told[0].startswith(f"The bucket s3://{address.bucket}/{address.prefix} did not let us list runs/")
    assert json.dumps(told).count("the-secret") == 0
