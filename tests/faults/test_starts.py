"""Starts that cannot end well: how soon that is known, what is said, and that nothing is left."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, records
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.serving.variants.common import CHECKOUT
from tests.faults import hub
from tests.serving import fake_server

NOTHING = "nothing is left running, no record"


def left_nothing(world):
    return records.names(world.folder) == [] and process.list_owned(world.folder) == []


def fails(world, seen, command_line="", began=lambda: None, **changes):
    """A start that must fail: the error."""
    if command_line:
        options = world.config.command.model_copy(update={"command_line": command_line})
        changes |= {"command": options}
    seen.begin()
    began()
    with pytest.raises(StartError) as error:
        world.start(**changes)
    assert left_nothing(world)
    seen(error.value)
    return error.value


@pytest.mark.fault(
    "impossible option",
    on="transformers serve",
    expected="refused before anything starts, in the words of the server's own parser",
    action=NOTHING,
)
def test_a_flag_that_transformers_does_not_know(llama, tmp_path, seen, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = ServeConfig(name="flagged", transformers={"extra_flags": ["--no-such-flag"]})
    seen.begin()
    with pytest.raises(ServingError) as error:
        start_endpoint(config, llama, tmp_path / "endpoints", silent)
    seen(error.value)
    told = "serve.transformers.extra_flags: the server does not take them: No such option '--no-such-flag'."
    assert str(error.value) == told
    assert not (tmp_path / "endpoints" / "logs").exists()


@pytest.mark.fault(
    "out of memory",
    on="the kernel gives the process no more",
    expected="FAILED when the process ends, cause `out of memory`",
    action=NOTHING,
)
def test_memory_that_the_kernel_does_not_give(world, seen):
    line = f"""bash -c 'ulimit -v 400000; exec {sys.executable} -S -c "bytearray(10**9)" {{port}}'"""
    error = fails(world, seen, line)
    assert error.cause is Cause.OUT_OF_MEMORY
    assert "It said: MemoryError" in str(error) or "MemoryError" in error.log_lines[-1]


@pytest.mark.fault(
    "out of memory",
    on="killed by the kernel while it loads",
    expected="FAILED when the process ends, cause `out of memory`",
    action=NOTHING,
)
def test_a_server_that_is_killed_while_it_loads(world, seen):
    error = fails(world, seen, "sh -c 'sleep 0.2; kill -9 $$' {port}")
    assert error.cause is Cause.OUT_OF_MEMORY
    assert "with exit code -9 (SIGKILL)." in str(error)


def downloading(world, url, cache):
    """Settings of an engine that downloads from that hub into that cache."""
    program = f"{CHECKOUT}/tests/faults/downloading_server.py"
    here = [f"HF_ENDPOINT={url}", f"HF_HOME={cache}", "HF_HUB_OFFLINE=0", "HF_HUB_DISABLE_XET=1"]
    return {
        "command_line": f"{sys.executable} {program} {hub.NAME} {{port}} {world.file}",
        "environment": [*here, f"PYTHONPATH={CHECKOUT}"],
    }


@pytest.mark.fault(
    "disk full in the cache",
    expected="FAILED when the process ends, cause `disk full`, with where to free space",
    action=NOTHING,
)
def test_a_cache_without_room_for_the_model(world, seen, small_disk):
    with hub.hub(bytes(8 << 20)) as url:
        error = fails(world, seen, **downloading(world, url, small_disk))
    assert error.cause is Cause.DISK_FULL
    assert "Free space where the model folder, the caches (HF_HOME, ~/.cache)" in str(error)


@pytest.mark.fault(
    "download that stalls",
    on="of a model",
    expected="FAILED when its startup budget is over (6 s here), saying that it was still downloading",
    action=NOTHING,
)
def test_a_download_that_stalls_ends_with_the_budget(world, seen, tmp_path):
    with hub.hub(bytes(8 << 20), stalls=True) as url:
        error = fails(world, seen, **downloading(world, url, tmp_path / "cache"), startup_budget_s=6)
    assert "was not healthy within startup_budget_s=6 s" in str(error)
    assert ". It was still downloading 0 %.\n" in str(error)


def test_an_engine_that_can_download_its_model_serves_it(world, tmp_path):
    with hub.hub(bytes(1 << 20)) as url:
        settings = downloading(world, url, tmp_path / "cache")
        options = world.config.command.model_copy(update={"command_line": settings.pop("command_line")})
        assert world.start(command=options, **settings).state is State.HEALTHY
    assert list((tmp_path / "cache").rglob(hub.FILE))


@pytest.mark.fault(
    "TERM while starting",
    on="the server",
    expected="FAILED when the process ends",
    action=NOTHING,
)
def test_a_server_that_is_ended_while_it_loads(world, seen):
    world.flags(health=503)

    def end(done, total, note="", /, **_):
        if (starting := records.load(world.folder, "fake.next")) and process.port_served(starting.port):
            seen.begin()
            os.kill(starting.process.pid, signal.SIGTERM)

    with pytest.raises(StartError) as error:
        start_endpoint(world.config, world.model, world.folder, end)
    seen(error.value)
    assert "ended after " in str(error.value)
    assert "with exit code -15 (SIGTERM)." in str(error.value)
    assert left_nothing(world)


@pytest.mark.fault(
    "TERM while starting",
    on="who starts it",
    expected="the record NAME.next says that nobody saw it answer; the old one goes on serving",
    action="the next start, stop or pass of the watcher ends what was started",
)
def test_a_starter_that_is_ended_leaves_what_the_next_pass_ends(world, seen):
    serving = world.start()
    world.watch()
    other = f"{sys.executable} -S {fake_server.__file__} {{port}} {world.file} other"
    options = world.config.command.model_copy(update={"command_line": other, "health_path": "/health"})
    config = world.config.model_copy(update={"command": options})
    world.flags(health=503)
    code = (
        "import sys; from pathlib import Path; from flows.progress import silent\n"
        "from flows.serving.config import ServeConfig; from flows.serving.promotion import start_endpoint\n"
        "config, model, folder = sys.argv[1:]\n"
        "start_endpoint(ServeConfig.model_validate_json(config), Path(model), Path(folder), silent)"
    )
    command = [sys.executable, "-c", code, config.model_dump_json(), str(world.model), str(world.folder)]
    starter = subprocess.Popen(command, cwd=CHECKOUT)
    deadline = time.monotonic() + 60
    while not (beside := records.load(world.folder, "fake.next")):
        assert time.monotonic() < deadline, shlex.join(command)
        time.sleep(0.02)
    seen.begin()
    starter.terminate()
    assert starter.wait() == -signal.SIGTERM
    left = {one.name: one for one in listing.list_records(world.folder)}["fake.next"]
    assert left.state is State.UNVERIFIED
    seen(left)
    world.flags()
    assert world.watch() == []
    assert not process.alive(beside.process)
    assert records.names(world.folder) == ["fake"]
    assert records.load(world.folder, "fake") == serving
    assert [name for name, _ in process.list_owned(world.folder)] == ["fake"]
