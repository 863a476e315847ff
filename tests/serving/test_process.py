import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flows.errors import ServingError
from flows.serving.runtimes import process
from flows.serving.variants.launch import Launch

# A leader with a worker that ignores TERM, as a model server with an engine process that hangs.
FAMILY = """
import signal, subprocess, sys, time
worker = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('worker', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", worker])
time.sleep(600)
"""

# The first thread ends alone, half a second before the process: a zombie without an exit code till then.
FIRST_THREAD_ENDS = """
import ctypes, os, platform, threading, time
threading.Thread(target=lambda: (time.sleep(0.5), os._exit(7))).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


def run(code: str, log: Path, **env: str):
    return process.start(Launch(command=[sys.executable, "-c", code], env=env, model="", ready_path="/"), log)


def free_port() -> int:
    return process.choose_port(0)


def wait_for(text: str, log: Path) -> None:
    for _ in range(200):
        if text in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in the log: {log.read_text()}")


@pytest.fixture
def family(tmp_path):
    record = run(FAMILY, tmp_path / "log")
    wait_for("worker", tmp_path / "log")
    pids = process.members(record)
    yield record
    for pid in pids:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def test_stop_ends_the_whole_group_even_a_worker_that_ignores_term(family):
    pids = process.members(family)
    assert len(pids) == 2
    assert pids[0] == family.pid
    assert os.getsid(family.pid) == family.pid != os.getsid(0)

    assert process.stop(family, free_port(), grace_s=0.5) == pids
    assert not process.alive(family)
    assert process.exit_code(family) == -signal.SIGTERM
    assert process.members(family) == []
    assert process.stop(family, free_port()) == []


def test_a_server_that_left_the_session_is_ended_too(tmp_path):
    server = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), exit())); "
    server += "print('up', flush=True); time.sleep(600)"
    code = "import subprocess, sys, time; "
    code += f"subprocess.Popen([sys.executable, '-c', {server!r}], start_new_session=True); time.sleep(600)"
    record = run(code, tmp_path / "log")
    wait_for("up", tmp_path / "log")
    leader, runaway = process.members(record)
    assert (leader, os.getsid(runaway)) == (record.pid, runaway)
    assert process.stop(record, free_port(), grace_s=5) == [leader, runaway]
    assert not psutil.pid_exists(runaway) or psutil.Process(runaway).status() == psutil.STATUS_ZOMBIE
    assert "bye" in (tmp_path / "log").read_text(), "it was asked to end before it was killed"


def test_workers_of_a_killed_leader_are_found_and_ended(family):
    leader, worker = process.members(family)
    os.kill(leader, signal.SIGKILL)
    while process.alive(family):
        time.sleep(0.01)

    assert process.members(family) == [worker]
    assert process.stop(family, free_port(), grace_s=0.2) == [worker]
    assert process.members(family) == []


def test_a_strangers_group_with_our_session_number_is_not_touched(family, tmp_path):
    leader, worker = process.members(family)
    os.kill(leader, signal.SIGKILL)
    (tmp_path / "ours.log").touch()
    ours = family.model_copy(update={"log": str(tmp_path / "ours.log"), "start_ticks": family.start_ticks - 100})

    assert process.stop(ours, free_port()) == []
    assert psutil.Process(worker).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("change", ["start_ticks", "boot_id"])
def test_a_later_process_with_the_same_pid_is_not_ours_and_never_killed(family, tmp_path, change):
    (tmp_path / "old.log").touch()
    value = family.start_ticks - 1 if change == "start_ticks" else "another-boot"
    old = family.model_copy(update={change: value, "log": str(tmp_path / "old.log")})

    assert not process.alive(old)
    assert process.stop(old, free_port(), grace_s=0.1) == []
    assert process.alive(family)


def test_a_process_that_ended_is_not_alive_and_leaves_its_exit_code(tmp_path):
    record = run("import sys; print('bye'); sys.exit(7)", tmp_path / "log")
    while process.alive(record):
        time.sleep(0.01)
    assert process.exit_code(record) == 7
    assert (tmp_path / "log").read_text() == "bye\n"


def test_secrets_of_the_caller_do_not_reach_the_server(tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "here")
    code = "import os; print(sorted(n for n, v in os.environ.items() if v in ('here', 'given')))"
    record = run(code, tmp_path / "log", NGC_API_KEY="given")
    while process.alive(record):
        time.sleep(0.01)
    assert (tmp_path / "log").read_text() == "['CUDA_VISIBLE_DEVICES', 'NGC_API_KEY']\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "http.server", "0", "--directory", "/tmp/hunter2"], " -m http.server)"),
        (["-c", "import time; time.sleep(600)", "-m", "hunter2"], ")"),
    ],
)
def test_who_holds_a_port_is_named_without_arguments_that_may_hold_a_secret(monkeypatch, arguments, words):
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            listener = SimpleNamespace(pid=child.pid, laddr=SimpleNamespace(port=5))
            monkeypatch.setattr(process.psutil, "net_connections", lambda kind: [listener])
            name = Path(sys.executable).name
            assert process.port_owner(5) == f"process {child.pid} ({name}{words}"
        finally:
            child.kill()


def test_a_command_that_does_not_exist_is_named(tmp_path):
    launch = Launch(command=["/no/such/server"], env={}, model="", ready_path="/")
    with pytest.raises(ServingError, match="Cannot start /no/such/server: No such file or directory"):
        process.start(launch, tmp_path / "log")


def test_a_taken_port_is_refused_naming_port_holder_and_way_out():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(ServingError, match=f"port: {port} on 127.0.0.1 is taken by process {os.getpid()} .*python"):
            process.choose_port(port)
        assert process.port_served(port)
    assert process.choose_port(port) == port
    assert not process.port_served(port)


def test_a_free_port_is_outside_the_range_of_outgoing_connections():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = process.choose_port(0)
    assert port in process.FREE_PORTS
    assert process.FREE_PORTS.stop <= lowest
    assert process.choose_port(port) == port


def test_stop_says_when_the_port_is_still_served(tmp_path):
    record = run("import time; time.sleep(600)", tmp_path / "log")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} still answers: process {os.getpid()}"):
            process.stop(record, port)
    assert not process.alive(record)


def test_the_exit_code_is_told_though_other_threads_end_later(tmp_path):
    record = run(FIRST_THREAD_ENDS, tmp_path / "log")
    assert process.wait_until(lambda: not process.alive(record), 10)
    assert process.exit_code(record) == 7
