"""Several processes train one model: with torchrun on this machine, with Ray on two nodes of a cluster."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from flows.corpus.row import Row, write_jsonl
from flows.errors import ConfigError, TransientError
from flows.progress import silent
from flows.stages import ray_team
from flows.stages.run_child import ChildError, Team, run_child
from flows.training.config import FinetuneConfig

SETTINGS = {
    "epochs": 2,
    "batch_size": 2,
    "accumulation": 2,
    "packing": False,
    "max_length": 128,
    "learning_rate": 0.01,
    "lora": {"r": 4, "alpha": 8, "dropout": 0},
    "log_steps": 1,
    "checkpoint_steps": 3,
    "threads": 1,
}


# As many steps, each so long that there are some left when it is killed or stopped.
SLOW = {"epochs": 12, "accumulation": 12}


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """24 rows about numbered parts: a whole number of steps."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = [
        Row(id=f"r{n}", source="s", group=f"g{n}", context="", question=f"What is part {n}?", answer=f"Part {n}.")
        for n in range(24)
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    return folder


@pytest.fixture
def train(tmp_path, parts, tiny_models):
    def _train(name, team, progress=silent, environment=None, **settings):
        inputs = {"dataset": str(parts), "model": str(tiny_models["llama-3"])}
        config = FinetuneConfig.model_validate({**SETTINGS, **settings})
        return run_child(
            "flows.training.finetune:run", config, inputs, tmp_path / name, progress, print, environment, team=team
        )

    return _train


def losses(figures):
    return [loss for _, loss in figures["loss"]]


def weights(folder):
    return load_file(folder / "output" / "model.safetensors")


def test_two_processes_have_the_loss_and_the_weights_of_one(train, tmp_path):
    steps = []
    one = train("one", Team())
    two = train(
        "two",
        Team(processes=2),
        lambda done, total, note="", /, **figures: steps.append(done) if "loss" in figures else None,
    )
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["steps"] == two["steps"] == len(losses(two))
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert steps == list(range(1, one["steps"] + 1))
    mine, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in theirs)


def test_a_killed_member_ends_all_and_another_number_of_processes_goes_on(train, tmp_path):
    def kill(done, total, note="", /, **figures):
        if done == 5:
            members = [one for one in psutil.process_iter(["cmdline"]) if is_member(one, tmp_path / "killed")]
            assert len(members) == 2
            members[-1].kill()

    with pytest.raises(TransientError, match="was ended"):
        train("killed", Team(processes=2), kill, **SLOW)
    deadline = time.monotonic() + 20
    while any(is_member(one, tmp_path / "killed") for one in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    resumed = train("killed", Team(), **SLOW)
    assert resumed["resumed_from_step"] in (3, 6, 9)
    whole = train("whole", Team(), **SLOW)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-4)


def test_a_used_up_budget_stops_all_members_at_the_same_step(train, tmp_path):
    def use_up(done, total, note="", /, **figures):
        (tmp_path / "stopped" / "stop.txt").write_text("The budget of an hour is used up.")

    with pytest.raises(
        ChildError, match=r"used up. Training has stopped at step \d+ of 12 with a checkpoint"
    ) as caught:
        train("stopped", Team(processes=2), use_up, **SLOW)
    assert not caught.value.retryable
    (tmp_path / "stopped" / "stop.txt").unlink()
    assert train("stopped", Team(processes=2), **SLOW)["resumed_from_step"] > 0


def is_member(process, workdir):
    words = process.info["cmdline"] or []
    return "flows.stages.team_child" in words and str(workdir / "child-request") in words


def test_an_error_of_the_members_is_told_in_its_own_words(train):
    with pytest.raises(ChildError, match="is 1 sequences a step, which 2 processes cannot share") as caught:
        train("uneven", Team(processes=2), batch_size=1, accumulation=1)
    assert not caught.value.retryable


def test_the_team_dies_with_the_run(tmp_path, parts, tiny_models):
    code = f"""
from pathlib import Path
from flows.progress import silent
from flows.stages.run_child import Team, run_child
from flows.training.config import FinetuneConfig
config = FinetuneConfig.model_validate({ {**SETTINGS, "epochs": 500}!r})
inputs = {{"dataset": {str(parts)!r}, "model": {str(tiny_models["llama-3"])!r}}}
run_child("flows.training.finetune:run", config, inputs, Path({str(tmp_path)!r}), silent, print, team=Team(2))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(members := [one for one in psutil.process_iter(["cmdline"]) if is_member(one, tmp_path)]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(members, timeout=20)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def cluster():
    """Two Ray nodes with a core each, on this machine; its address."""
    pytest.importorskip("ray")
    port = free_port()
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--object-store-memory=100000000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RAY_USAGE_STATS_ENABLED": "0"}
    nodes = []
    try:
        for which in (["--head", f"--port={port}", "--include-dashboard=false"], [f"--address=127.0.0.1:{port}"]):
            command = [*ray, "--disable-usage-stats", "--block", *which]
            nodes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True))
            wait_for_port(port)
        yield f"127.0.0.1:{port}"
    finally:
        for node in reversed(nodes):
            family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
            node.terminate()
            for one in psutil.wait_procs(family, timeout=15)[1]:
                one.kill()
            node.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for_port(port):
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_two_machines_of_a_ray_cluster_have_the_loss_of_one_process(train, tmp_path, cluster):
    steps = []
    two = train(
        "two",
        Team(nodes=2),
        lambda done, total, note="", /, **figures: steps.append(done) if "loss" in figures else None,
        {"RAY_ADDRESS": cluster},
    )
    one = train("one", Team())
    assert two["processes"] == 2
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert steps == list(range(1, one["steps"] + 1))
    assert (tmp_path / "two" / "output" / "model.safetensors").exists()


def test_what_ray_keeps_of_a_training_has_no_secret(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("HF_TOKEN", "the-secret")
    team = {"nodes": 2, "processes": 1}
    trainer = ray_team._trainer({"team": team, "workdir": str(tmp_path), "variables": ["HF_TOKEN"]})
    kept = trainer.train_run_context
    assert (kept.train_loop_config, "the-secret" in repr(kept)) == (None, False)
    monkeypatch.delenv("HF_TOKEN")
    seen = []
    monkeypatch.setattr(ray_team, "member", lambda request: seen.append(os.environ["HF_TOKEN"]) or True)
    trainer.train_loop_per_worker()
    assert seen == ["the-secret"], "the member has it all the same"


def test_without_a_cluster_it_is_said_what_to_do(train):
    with pytest.raises(ChildError, match="RAY_ADDRESS is not set") as caught:
        train("none", Team(nodes=2))
    assert not caught.value.retryable


def test_a_cluster_that_is_too_small_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ConfigError, match="3 machines asked for, the Ray cluster at head:6379 has 1"):
        ray_team._wait_for_nodes(lambda: [{"Alive": True}, {"Alive": False}], 3, seconds=0)
