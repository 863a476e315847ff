"""The main job on a real server and worker, with tiny models: what a user sees when it goes well and when not."""

import json
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from deployments.local import CHECKOUT
from flows.reporting.contract import RunReport
from flows.serving import records
from flows.serving.ask import ask
from flows.serving.state import State
from tests.end_to_end.conftest import SMALL

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]
WORK = ["prepare", "pretrain", "finetune", "evaluate"]


def report_of(prefect, run_id):
    return RunReport.model_validate_json((prefect.folder(run_id) / "report.json").read_text("utf-8"))


def children(text):
    """Processes whose command line holds the text."""
    found = []
    for process in psutil.process_iter():
        try:
            if text in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def no_traceback_of_ours(log):
    """Prefect's engine logs a traceback of its own frames for every failed run; none of ours may be in it."""
    return 'File "' not in log.replace(f'File "{sys.prefix}/', "").replace(f'File "{sys.base_prefix}/', "")


def wait_for(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.3)  # a look may go through all processes
    return found


def test_the_korean_demo_runs_is_refused_by_the_gate_and_is_cached_the_second_time(prefect):
    first, state = prefect.run()
    assert state["type"] == "COMPLETED", state["message"]
    report = report_of(prefect, first)
    assert [(s.name, s.status) for s in report.stages if s.name in WORK] == [(name, "ran") for name in WORK]
    assert not report.gate.passed
    assert report.endpoint is None
    assert "did not pass" in state["message"]
    assert records.load(prefect.local.store / "endpoints", "demo-korean") is None
    assert "nothing is served" in prefect.log(first)
    assert report.metrics.truthfulness.stand_in
    files = {file.name for file in prefect.folder(first).iterdir()}
    expected = {
        "report.json",
        "report.html",
        "truthfulness_result.png",
        "loss.png",
        "predictions.parquet",
        "manifest.json",
    }
    assert expected <= files
    keys = set(prefect.artifacts(first))
    assert {"report", "semscore", "stages", "cost", "report-page", "finetune-progress", "evaluate-progress"} <= keys
    costs = {stage.name: stage.cost for stage in report.stages if stage.cost}
    assert list(costs) == WORK
    assert all(costs[name].tokens > 0 and costs[name].flops > 0 for name in ("pretrain", "finetune", "evaluate"))
    assert costs["finetune"].tokens == report.training[-1].tokens
    assert report.cost.work_seconds == pytest.approx(sum(cost.seconds for cost in costs.values()))

    second, state = prefect.run()
    again = report_of(prefect, second)
    cached = [s for s in again.stages if s.name in WORK]
    assert [(s.name, s.status) for s in cached] == [(name, "cached") for name in WORK]
    assert {s.from_run for s in cached} == {report.run_name}
    assert all(first in s.from_run_url for s in cached)
    assert again.metrics == report.metrics
    assert again.cost.trained_tokens == 0
    assert (again.cost.work_seconds, again.cost.attempts) == (0, 0)
    assert again.cost.saved.seconds == pytest.approx(report.cost.work_seconds)
    assert {"runs", "runs-cost"} <= set(prefect.artifacts(second))
    assert f">{again.run_name}</a>" in (prefect.local.store / "runs.html").read_text("utf-8")


def test_a_passed_gate_serves_the_model_and_stop_ends_it(prefect, glossary):
    run_id, state = prefect.run(
        **{**SMALL, "sources": glossary, "gate": {"min_delta": -1, "margin": 1}, "serve": {"name": "e2e"}}
    )
    assert state["type"] == "COMPLETED", state["message"]
    report = report_of(prefect, run_id)
    assert report.gate.passed
    assert report.endpoint.state == "HEALTHY"
    folder = prefect.local.store / "endpoints"
    endpoint = records.load(folder, "e2e")
    assert endpoint.model == report.trained_model_uri
    answer = ask(endpoint, "What is item 3?", max_tokens=4)
    assert isinstance(answer, str)
    curl = subprocess.run(report.endpoint.curl, shell=True, capture_output=True, text=True)
    assert json.loads(curl.stdout)["choices"]
    variable = prefect.ask("GET", "/variables/name/endpoint_e2e")["value"]
    assert variable["url"] == endpoint.url
    assert "endpoint" in prefect.artifacts(run_id)

    command = [sys.executable, "-m", "flows.serving", "stop", "e2e", "--store", str(prefect.local.store)]
    assert subprocess.run(command, cwd=CHECKOUT, capture_output=True).returncode == 0
    assert records.load(folder, "e2e").state is State.STOPPED
    with pytest.raises(httpx.ConnectError):
        httpx.get(endpoint.ready_url, timeout=5)


@pytest.mark.parametrize(
    ("parameter", "field"),
    [
        ('finetune={"learning_rate": -1}', "finetune.learning_rate"),
        ('finetune={"learning_ratee": 1}', "learning_ratee"),
        ('finetune={"method": "rlhf"}', "finetune.method"),
        ("modell=1", "modell"),
    ],
)
def test_a_wrong_parameter_is_refused_before_a_run_exists(prefect, parameter, field):
    command = [sys.executable, "-m", "prefect", "deployment", "run", "domain-adaptation/demo", "-p", parameter]
    environment = prefect.local.environment(prefect.port)
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert field in " ".join((done.stdout + done.stderr).split())


def test_all_problems_are_named_at_once_and_nothing_starts(prefect, tmp_path):
    (tmp_path / "empty").mkdir()
    artifacts = prefect.local.store / "artifacts"
    before = sorted(artifacts.rglob("*"))
    run_id, state = prefect.run(
        **{
            **SMALL,
            "sources": {"exams": [{"path": str(tmp_path / "empty")}, {"path": "nowhere"}], "templates": "no.yaml"},
            "model": {"name": "nobody/nothing"},
            "finetune": {"report_to": "wandb"},
            "evaluation": {"embedder": "packaged:nothing", "judge": "no-such-block"},
            "budget": {"max_cost": 5},
        }
    )
    assert state["type"] == "FAILED"
    everywhere = ("sources.exams[0]", "sources.exams[1]", "no.yaml", "finetune.report_to", "model.name")
    for words in (*everywhere, "evaluation.embedder", "evaluation.judge", "budget.max_cost"):
        assert words in state["message"]
    assert no_traceback_of_ours(prefect.log(run_id))
    assert sorted(artifacts.rglob("*")) == before
    assert "failure" in prefect.artifacts(run_id)


def test_bad_data_fails_at_once_without_retry_or_traceback(prefect, tmp_path):
    (tmp_path / "qa.csv").write_text("question,answer\nWhat?,This.\nWhy?,\n")
    run_id, state = prefect.run(**{**SMALL, "sources": {"tables": [{"path": str(tmp_path / "qa.csv")}]}})
    assert state["type"] == "FAILED"
    assert "only 1 usable rows" in state["message"]
    assert "qa.csv, line 3: no-answer" in state["message"]
    log = prefect.log(run_id)
    assert "Traceback" not in log
    assert "Retry" not in log
    failure = json.loads((prefect.folder(run_id) / "failure.json").read_text())
    assert [(stage["name"], stage["status"]) for stage in failure["stages"]] == [("prepare", "failed")]
    listed, state = prefect.run("list-runs/local")
    assert state["type"] == "COMPLETED", state["message"]
    page = prefect.artifacts(listed)["runs"]["data"]
    assert f"{failure['run_name']}](" in page
    assert "only 1 usable rows" in page


def test_a_taken_port_is_named_before_anything_is_trained(prefect, glossary):
    _, state = prefect.run(**{**SMALL, "sources": glossary, "serve": {"port": prefect.port}})
    assert state["type"] == "FAILED"
    assert str(prefect.port) in state["message"]


def test_an_unreachable_judge_is_named_before_anything_is_trained(prefect, glossary):
    environment = prefect.local.environment(prefect.port)
    code = (
        "from blocks.openai_endpoint import OpenAIEndpoint;"
        "block = OpenAIEndpoint(base_url='http://127.0.0.1:9/v1', model='m', api_key='sk-secret');"
        "block.save('nowhere', overwrite=True)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, check=True)
    run_id, state = prefect.run(
        **{**SMALL, "sources": glossary, "evaluation": {**SMALL["evaluation"], "judge": "nowhere"}}
    )
    assert state["type"] == "FAILED"
    assert "http://127.0.0.1:9/v1 does not answer" in state["message"]
    assert "sk-secret" not in prefect.log(run_id) + state["message"]


LONG = {**SMALL["finetune"], "epochs": 30, "checkpoint_steps": 5, "log_steps": 1, "batch_size": 2, "accumulation": 1}


def test_a_full_disk_in_training_is_named_and_nothing_is_half_written(prefect, glossary, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk can only be mounted as root")
    try:
        finetune = {**LONG, "method": "full"}
        run_id, state = prefect.run(**{**SMALL, "sources": glossary, "finetune": finetune, "run": {"store": str(disk)}})
        assert state["type"] == "FAILED"
        assert "disk" in state["message"]
        assert "Retry" not in prefect.log(run_id)
        assert not list(disk.glob("artifacts/model/*"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
