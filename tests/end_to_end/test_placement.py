"""Stages in a second work pool, whose workers have GPUs (pretended): placed, leased, linked, killed, cancelled."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from unittest import mock

import psutil
import pytest

from flows.gpus.leases import lease
from tests.end_to_end.conftest import SMALL
from tests.end_to_end.test_runs import children, wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(420)]
POOL = "gpu"
WORKERS = ("gpu-1", "gpu-2", "gpu-3")
ON_GPU = {"finetune": {"work_pool": POOL, "gpus": 1}}
# So long that there is time to kill it: checkpoints every step, many epochs.
LONG = SMALL | {"finetune": SMALL["finetune"] | {"epochs": 40, "checkpoint_steps": 5}}


@pytest.fixture(scope="module")
def gpu_pool(prefect, tmp_path_factory):
    """A work pool with three workers, a run each, on a machine with two pretended cards; their environment."""
    leases = tmp_path_factory.mktemp("leases")
    prefect.local.prefect(prefect.port, "work-pool", "create", POOL, "--type", "process")
    prefect.local.apply_stages(prefect.port)
    environment = prefect.local.environment(prefect.port) | {"FINETUNE_GPUS": "2", "FINETUNE_LEASES": str(leases)}
    start = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1", "--name"]
    workers = []
    for name in WORKERS:
        with (leases / f"{name}.log").open("w") as log:
            command = [*start, name]
            workers += [subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)]
    yield environment
    for worker in workers:
        os.killpg(worker.pid, signal.SIGKILL)  # its runs have ended; in order it would take its time
        worker.wait()


def stage_runs(prefect, run_id):
    """The runs of its stages, the oldest first."""
    body = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}, "sort": "START_TIME_ASC"}
    return prefect.ask("POST", "/flow_runs/filter", json=body)


def stages(prefect, run_id):
    report = json.loads((prefect.folder(run_id) / "report.json").read_text())
    return {one["name"]: one for one in report["stages"]}


def training(prefect):
    """The training processes of this Prefect's store."""
    return children(f"flows.stages.child {prefect.local.store / 'work' / 'finetune'}")


def stage_processes(prefect):
    """Of the runs on this Prefect's workers that have cards; another Prefect of the machine may have such too."""
    found = []
    for one in children("prefect.engine"):
        with contextlib.suppress(psutil.Error):
            there = one.environ()
            if there.get("FINETUNE_GPUS") and there["FINETUNE_STORE"] == str(prefect.local.store):
                found.append(one)
    return found


def _waits(prefect, run):
    return "Waiting for 1 GPU: a test holds GPU 0, 1" in prefect.log(run["id"])


def test_variants_train_side_by_side_on_cards_of_their_own_and_the_best_goes_on(prefect, gpu_pool, glossary):
    rates = {"slow": 0.0001, "middle": 0.001, "fast": 0.01}
    variants = [{"name": name, "overrides": [f"finetune.learning_rate={rate}"]} for name, rate in rates.items()]
    with mock.patch.dict("os.environ", gpu_pool), lease(2, "a test", pytest.fail):  # until all three want a card
        run_id = prefect.start(**SMALL, sources=glossary, variants=variants, resources=ON_GPU)
        wait_for(lambda: [_waits(prefect, run) for run in stage_runs(prefect, run_id)] == [True] * 3, 180)
    state = prefect.wait(run_id)
    assert state["type"] == "COMPLETED", state
    runs = stage_runs(prefect, run_id)
    assert {run["work_pool_name"] for run in runs} == {POOL}
    assert sorted(run["name"].rpartition("finetune-")[2] for run in runs) == ["fast", "middle", "slow"]
    logs = {run["id"]: prefect.log(run["id"]) for run in runs}
    assert all(any(f"Worker '{name}' submitting" in log for log in logs.values()) for name in WORKERS)
    cards = [card for card in ("0", "1") for log in logs.values() if f"has GPU {card}." in log]
    assert len(cards) == 3
    waits = [log for log in logs.values() if re.search(r"Waiting for 1 GPU: .+ holds GPU \d; .+ holds GPU \d", log)]
    assert len(waits) == 1, "two cards, three trainings"

    report = json.loads((prefect.folder(run_id) / "report.json").read_text())
    best = max(report["variants"], key=lambda one: one["delta"]["mean"])
    assert [one["name"] for one in report["variants"] if one["chosen"]] == [best["name"]]
    assert report["trained_model_uri"] == best["model"]
    assert report["split"] == "test"

    again, state = prefect.run(**SMALL | {"finetune": SMALL["finetune"] | {"learning_rate": 0.01}}, sources=glossary)
    assert state["type"] == "COMPLETED"
    assert stages(prefect, again)["finetune"]["status"] == "cached", "the key is the same wherever it was trained"
    assert stage_runs(prefect, again) == []
    bold = SMALL | {"finetune": SMALL["finetune"] | {"learning_rate": 0.01}, "run": {"skip": ["evaluate"]}}
    _, state = prefect.run(**bold, sources=glossary)
    assert state["message"].startswith("Trained and not evaluated, so nothing is served: "), state
    other = SMALL | {"finetune": SMALL["finetune"] | {"learning_rate": 0.02}}
    explained, state = prefect.run("explain/demo", **other, sources=glossary)
    assert state["message"] == "Would run: finetune, evaluate. Of the others 2 are there already.", state
    told = prefect.artifacts(explained)["explanation"]["data"]
    assert "-&gt; 0.02 (since " in told
    assert "finetune would run" in told


def test_a_killed_stage_run_is_started_again_and_a_cancelled_run_leaves_nothing(prefect, gpu_pool, glossary):
    run_id = prefect.start(**LONG, sources=glossary, resources=ON_GPU)
    wait_for(lambda: training(prefect), 120)
    [flow] = stage_processes(prefect)
    flow.kill()
    wait_for(lambda: not any(one.is_running() for one in [flow]), 30)
    wait_for(lambda: len(stage_runs(prefect, run_id)) == 2 and training(prefect), 120)
    first, second = stage_runs(prefect, run_id)
    assert (first["state"]["type"], second["state"]["type"]) == ("CRASHED", "RUNNING")

    prefect.ask("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING"}, "force": True})
    assert prefect.wait(run_id, 120)["type"] == "CANCELLED"
    wait_for(lambda: not training(prefect), 60)
    assert prefect.wait(second["id"], 60)["type"] == "CANCELLED"


def test_a_cancelled_run_leaves_none_of_the_stages_that_ran_side_by_side(prefect, gpu_pool):
    needs = {"work_pool": POOL, "gpus": 1}
    sleeps = {"a": "exec -a first-stage sleep 600", "b": "bash -c 'exec -a second-stage sleep 600'; true"}
    stages = [{"name": n, "kind": "shell", "command": command, "resources": needs} for n, command in sleeps.items()]
    stages.append({"name": "c", "kind": "shell", "command": "exec -a third-stage sleep 600"})
    run_id = prefect.start("pipeline/example", stages=stages)
    commands = wait_for(lambda: len(found := children("-stage 600")) == 3 and found, 120)
    runs = stage_runs(prefect, run_id)
    flows = stage_processes(prefect)

    prefect.ask("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING"}, "force": True})
    assert prefect.wait(run_id, 60)["type"] == "CANCELLED"
    assert [prefect.wait(run["id"], 60)["type"] for run in runs] == ["CANCELLED", "CANCELLED"]
    wait_for(lambda: not any(one.is_running() for one in [*commands, *flows]), 60)
    for run in runs:  # by the run itself: Prefect's own service looks only now and then
        states = prefect.ask("GET", f"/flow_run_states/?flow_run_id={run['id']}")
        assert "Its parent run was cancelled." in [state["message"] for state in states]


def test_what_no_pool_can_give_is_said_before_anything_starts(prefect, gpu_pool, glossary):
    wrong = {
        "prepare": {"memory": "900t"},
        "pretrain": {"work_pool": "nowhere"},
        "finetune": {"gpus": 1.7, "work_pool": POOL},
        "evaluate": {"env": ["HF_TOKEN=secret:not-there"]},
    }
    run_id, state = prefect.run(**SMALL, sources=glossary, resources=wrong)
    assert state["type"] == "FAILED"
    for words in (
        "resources.prepare.memory: 900t asked for, this machine has ",
        "resources.pretrain.work_pool: there is no work pool 'nowhere' on this server; it has ",
        "resources.finetune.gpus: 1.7 is neither a share of one card (below 1) nor whole ones.",
        "resources.evaluate.env: HF_TOKEN: There is no Prefect Secret block 'not-there'.",
    ):
        assert words in state["message"]
    assert stage_runs(prefect, run_id) == []

    run_id, state = prefect.run(**SMALL, sources=glossary, resources={"finetune": {"gpus": 4, "work_pool": POOL}})
    assert state["type"] == "FAILED"
    assert "gpus: 4 asked for, this machine has 2." in state["message"]
    assert len(stage_runs(prefect, run_id)) == 1, "no retry"


def test_a_pool_of_another_version_of_the_project_is_refused_before_anything_starts(prefect, gpu_pool, glossary):
    deployment = prefect.ask("GET", f"/deployments/name/run-stage/{POOL}")
    prefect.ask("PATCH", f"/deployments/{deployment['id']}", json={"version": "prefect-finetune 0.0.1"})
    run_id, state = prefect.run(**SMALL, sources=glossary, resources=ON_GPU)
    prefect.ask("PATCH", f"/deployments/{deployment['id']}", json={"version": deployment["version"]})
    assert state["type"] == "FAILED"
    words = "resources.finetune.work_pool: run-stage/gpu is of prefect-finetune 0.0.1, and this run of "
    assert words + deployment["version"] in state["message"]
    assert stage_runs(prefect, run_id) == []
