import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.errors import TransientError
from flows.progress import silent
from flows.stages.run_child import ChildError, run_child
from tests.stages.work import WorkConfig


def call(name, workdir, number=0, progress=silent, log=lambda line: None, **rest):
    return run_child(
        f"tests.stages.work:{name}", WorkConfig(number=number), {"a": "/tmp"}, workdir, progress, log, **rest
    )


def test_figures_progress_log_and_environment_come_through(tmp_path):
    seen, lines = [], []
    figures = call(
        "run",
        tmp_path,
        3,
        lambda done, total, note="", /, **more: seen.append((done, total, note, more)),
        lines.append,
        environment={"SECRET_FOR_CHILD": "s3"},
    )
    assert (figures["number"], figures["inputs"], figures["secret"]) == (3, ["a"], "s3")
    assert figures["peak_memory_gib"] > 0
    assert seen == [(n, 3, f"step {n}", {"loss": 1.0}) for n in (1, 2, 3)]
    assert [line for line in lines if line.startswith("line")] == ["line 1", "line 2", "line 3"]
    assert "s3" not in (tmp_path / "child-request").read_text()


@pytest.mark.parametrize(
    ("function", "message", "retryable"),
    [
        ("wrong", "^terms.json, line 3: no description$", False),
        ("bug", "Unexpected ZeroDivisionError: division by zero", True),
        ("full_disk", "The disk is full", False),
    ],
)
def test_a_failure_keeps_its_words_and_knows_if_a_retry_helps(tmp_path, function, message, retryable):
    lines = []
    with pytest.raises(ChildError, match=message) as caught:
        call(function, tmp_path, log=lines.append)
    assert caught.value.retryable is retryable
    assert any("Traceback" in line for line in lines) is (function != "wrong")


def test_a_killed_child_is_worth_a_retry(tmp_path):
    with pytest.raises(TransientError, match="ended by signal 9"):
        call("killed", tmp_path)


def test_the_child_dies_with_its_parent(tmp_path):
    code = (
        f"from pathlib import Path; from tests.stages.test_run_child import call;call('slow', Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not pid_file.exists() or not pid_file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child = psutil.Process(int(pid_file.read_text()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
