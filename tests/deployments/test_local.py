"""A local Prefect is taken down: what runs for it ends, whatever else is wrong."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from deployments.local import Local, LocalPrefect, main
from flows.serving import records
from flows.serving.runtimes import process
from flows.serving.state import State
from flows.store.files import write_json
from tests.serving.test_probe import endpoint_at
from tests.serving.test_process import run


@pytest.fixture
def local(tmp_path):
    return Local(tmp_path)


def test_what_cannot_be_stopped_is_told_and_keeps_nothing_else_from_it(local, tmp_path, capsys):
    folder = local.store / "endpoints"
    server = run("import time; time.sleep(600)", tmp_path / "log")
    endpoint = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"process": server, "port": 9})
    try:
        records.save(folder, endpoint.model_copy(update={"name": "late"}))
        (folder / "broken.json").write_text("{}")
        assert main(["down", "--folder", str(tmp_path)]) == 1
        said = capsys.readouterr()
        assert said.out == "Ended: endpoint late at http://127.0.0.1:9/v1\n"
        assert said.err.startswith(f"Not ended: endpoint broken: {folder}/broken.json is no endpoint record")
        assert not process.alive(server)
    finally:
        if process.alive(server):
            os.kill(server.pid, signal.SIGKILL)


def test_what_was_stopped_long_before_is_not_told_as_ended(local, tmp_path, capsys):
    stopped = endpoint_at("http://127.0.0.1:9/v1").model_copy(update={"state": State.STOPPED})
    gone = stopped.process.model_copy(update={"boot_id": "another"})
    records.save(local.store / "endpoints", stopped.model_copy(update={"process": gone, "why": "Ended process 12."}))
    assert main(["down", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing was ended.\n"


def test_runs_that_are_under_way_end_with_their_prefect_and_those_of_another_go_on(local, tmp_path, capsys):
    command = [sys.executable, "-c", "import time; time.sleep(600)", "prefect.engine"]
    runs = {}
    for name, port in (("mine", 4), ("another", 5)):
        own = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT__FLOW_RUN_ID": name}
        runs[name] = subprocess.Popen(command, env=os.environ | own)
    try:
        write_json(local.record_file, LocalPrefect(port=4, server=gone(tmp_path)).model_dump())
        assert main(["down", "--folder", str(tmp_path)]) == 0
        assert capsys.readouterr().out == "Ended: run mine\n"
        assert [name for name, one in runs.items() if psutil.pid_exists(one.pid)] == ["another"]
    finally:
        for one in runs.values():
            one.kill()
            one.wait()


def gone(tmp_path):
    """A server that was killed."""
    server = run("import time; time.sleep(600)", tmp_path / "log")
    os.kill(server.pid, signal.SIGKILL)
    assert process.wait_until(lambda: not process.members(server), 10)
    return server
