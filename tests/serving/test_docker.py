"""Real containers of a real engine (Podman), which really serve, fail and end."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, probe, records
from flows.serving.__main__ import main
from flows.serving.causes import Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import docker, process
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.sweep import end_orphans
from tests.serving import image_registry, podman
from tests.serving.test_vllm import OPTIONS, random_adapter
from tests.serving.test_vllm import PYTHON as VLLM
from tests.serving.verifications import the_three_ways_of_asking

pytestmark = [pytest.mark.end_to_end, pytest.mark.skipif(bool(podman.missing()), reason=podman.missing())]
PYTHON = f"{sys.base_prefix}/bin/python3"


@pytest.fixture(scope="module")
def engine():
    with podman.engine() as socket_path:
        yield socket_path


@pytest.fixture(autouse=True)
def _only_this_engine(engine, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine}")


def containers(engine):
    with podman.client(engine) as api:
        return [one["Id"] for one in api.containers(all=True)]


def inspected(endpoint):
    with podman.client(endpoint.process.socket) as api:
        return api.inspect_container(endpoint.process.id)


def nim(name="nim", variables=(), docker_options=None, **settings):
    options = {"mounts": podman.PROGRAMS} | (docker_options or {})
    image = {"image": podman.NIM}
    return ServeConfig(
        name=name, variant="nim", nim=image, runtime="docker", docker=options, environment=list(variables), **settings
    )


def command(line, name="own", **settings):
    options = {"command_line": line, "image": podman.BASE} | settings.pop("command", {})
    options_of_docker = {"mounts": podman.PROGRAMS} | settings.pop("docker", {})
    return ServeConfig(
        name=name, variant="command", runtime="docker", command=options, docker=options_of_docker, **settings
    )


def test_transformers_serves_a_model_from_a_container_and_nothing_is_left_of_it(
    engine, llama, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    config = ServeConfig(
        name="boxed",
        runtime="docker",
        docker={"image": podman.BASE, "mounts": podman.PROGRAMS, "shm_gib": 0.5},
        transformers={"python": sys.executable},
        secret_variables=["HF_TOKEN"],
    )
    before = running(str(llama))
    endpoint = start_endpoint(config, llama, tmp_path / "endpoints", silent)
    assert (endpoint.state, endpoint.model, endpoint.runtime) == (State.HEALTHY, str(llama), "docker")
    the_three_ways_of_asking(endpoint)
    assert listing.list_records(tmp_path / "endpoints") == [endpoint]
    assert start_endpoint(config, llama, tmp_path / "endpoints", silent) == endpoint

    seen = inspected(endpoint)
    assert seen["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert seen["HostConfig"]["ShmSize"] == 2**29
    assert seen["HostConfig"]["Init"]
    assert {m["Destination"]: m["RW"] for m in seen["Mounts"]}[str(llama)] is False
    labels = {key.removeprefix("prefect-finetune."): value for key, value in seen["Config"]["Labels"].items()}
    assert (labels["owner"], labels["name"]) == (str(tmp_path / "endpoints"), "boxed")
    assert labels["revision"] == endpoint.settings
    assert labels["version"]
    hidden = {"labels": labels, "command": [seen["Path"], seen["Args"], seen["Config"]["Entrypoint"]]}
    assert "hf_secret_value" not in json.dumps(hidden) + endpoint.model_dump_json()
    assert "HF_TOKEN=hf_secret_value" in seen["Config"]["Env"]

    assert main(["logs", "boxed", "--store", str(tmp_path)]) == 0
    assert "Uvicorn running on" in capsys.readouterr().out
    assert main(["list", "--store", str(tmp_path)]) == 0
    assert f"  {endpoint.process.name}  " in capsys.readouterr().out
    stopped = stop_endpoint("boxed", tmp_path / "endpoints")
    assert (stopped.state, stopped.why) == (State.STOPPED, f"Ended container {endpoint.process.name}.")
    assert containers(engine) == []
    assert not process.port_served(endpoint.port)
    assert running(str(llama)) == before
    assert "POST /v1/chat/completions" in Path(endpoint.log).read_text()
    assert stop_endpoint("boxed", tmp_path / "endpoints") == stopped


SERVE = f"{sys.executable} -m transformers.cli.transformers serve {{model_path}} --host {{host}} --port {{port}}"


def test_a_command_line_serves_from_a_container(engine, llama, tmp_path):
    config = command(SERVE, command={"health_path": "/health"})
    endpoint = start_endpoint(config, llama, tmp_path, silent)
    assert (endpoint.state, endpoint.model, endpoint.runtime) == (State.HEALTHY, str(llama), "docker")
    the_three_ways_of_asking(endpoint)
    stop_endpoint("own", tmp_path)
    assert containers(engine) == []


def test_a_definition_serves_from_a_container_after_its_actions(engine, llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    (folder / "model-definition.yaml").write_text(
        f"""
models:
  - name: tiny
    model_path: /models
    service:
      pre_start_actions:
        - {{action: mkdir, args: {{path: /tmp/made/inside}}}}
        - {{action: write_file, args: {{filename: /tmp/made/inside/note, body: ["model is {{model_path}}"]}}}}
        - {{action: run_command, args: {{command: [cat, /tmp/made/inside/note]}}}}
      start_command: exec {SERVE}
      port: 8000
      health_check: {{enable: true, path: /health, initial_delay: 120}}
"""
    )
    options = {"mounts": podman.PROGRAMS}
    config = ServeConfig(name="c", variant="custom", custom={"image": podman.BASE}, runtime="docker", docker=options)
    endpoint = start_endpoint(config, folder, tmp_path / "endpoints", silent)
    assert (endpoint.state, endpoint.model) == (State.HEALTHY, str(folder))
    the_three_ways_of_asking(endpoint)
    assert f"model is {folder}" in docker.logs(endpoint.process, 50)
    assert not Path("/tmp/made/inside").exists()
    stop_endpoint("c", tmp_path / "endpoints")


@pytest.mark.skipif(not VLLM.exists(), reason=f"there is no {VLLM}: `make vllm` makes it (5 minutes, 3.4 GB)")
@pytest.mark.fault(
    "kill -9 of the engine",
    on="vLLM in a container",
    expected="FAILED as soon as the server has ended, which it does by itself",
    action="the watcher starts it again after 10 s, 20 s ...; nothing of it is left running",
)
def test_vllm_serves_from_a_container_with_an_adapter_beside_its_base(engine, llama, tmp_path, seen):
    home = VLLM.parents[1]
    options = OPTIONS | {"python": str(VLLM), "enable_lora": True, "image": podman.BASE}
    options["adapters"] = [{"name": "style", "path": str(random_adapter(llama, tmp_path / "style"))}]
    places = {"mounts": [*podman.PROGRAMS, f"{home}:{home}"]}
    config = ServeConfig(name="boxed", variant="vllm", runtime="docker", docker=places, vllm=options)
    notes = []
    endpoint = start_endpoint(
        config, llama, tmp_path / "endpoints", lambda done, total, note="", /, **_: notes.append(note)
    )
    assert (endpoint.state, endpoint.model, endpoint.root) == (State.HEALTHY, "boxed", str(llama))
    assert any("loading weights" in note for note in notes)
    the_three_ways_of_asking(endpoint)
    the_three_ways_of_asking(endpoint.model_copy(update={"model": "style"}))

    [engine_process] = running("VLLM::EngineCore")
    seen.begin()
    os.kill(engine_process, signal.SIGKILL)
    assert process.wait_until(lambda: not docker.alive(endpoint.process), 60), "the server ends without its engine"
    checked = probe.check(endpoint)
    seen(checked)
    assert checked.state is State.FAILED
    stop_endpoint("boxed", tmp_path / "endpoints")
    assert containers(engine) == []
    assert running(str(VLLM)) == []


def running(word):
    """Pids of processes that have the word on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_a_nim_tells_how_far_it_is_and_gets_its_variables(engine, llama, tmp_path, monkeypatch, network):
    monkeypatch.setenv("NGC_API_KEY", "nvapi-secret")
    notes = []
    config = nim("trade", ["LOAD_S=4", "NIM_LOG_LEVEL=INFO"], {"network": network})
    config = config.model_copy(
        update={"nim": config.nim.model_copy(update={"max_model_len": 512, "cache_folder": str(tmp_path / "cache")})}
    )
    loading = set()

    def ask(done, total, note="", /, **_):
        notes.append(note)
        if "downloading" in note:
            ((_, one),) = [(name, records.load(tmp_path, name)) for name in records.names(tmp_path)]
            paths = ("live", "ready")
            loading.add(tuple(httpx.get(f"{one.url}/health/{path}", trust_env=False).status_code for path in paths))

    endpoint = start_endpoint(config, llama, tmp_path, ask)
    try:
        assert (endpoint.state, endpoint.model) == (State.HEALTHY, "trade")
        assert loading == {(200, 503)}, "it is live while it loads, and not ready"
        shown = [note.removeprefix("trade.next: ") for note in notes]
        assert any(re.fullmatch(r"downloading \d+ %", note) for note in shown), shown
        assert any(re.fullmatch(r"loading weights \d+ %", note) for note in shown), shown
        told = httpx.get(f"{endpoint.url}/metadata", trust_env=False).json()
        inside = told.pop("NIM_SERVER_PORT")
        assert told == {
            "NIM_SERVED_MODEL_NAME": "trade",
            "NIM_MODEL_PATH": str(llama),
            "NIM_MAX_MODEL_LEN": "512",
            "NIM_CACHE_PATH": "/opt/nim/.cache",
            "HF_HOME": "/opt/nim/.cache/huggingface",
            "NIM_LOG_LEVEL": "INFO",
            "NGC_API_KEY": "nvapi-secret",
        }
        assert inside == str(endpoint.port)
        seen = inspected(endpoint)
        assert "nvapi-secret" not in json.dumps(seen["Config"]["Labels"])
        bound = seen["HostConfig"]["PortBindings"]
        here = [{"HostIp": "127.0.0.1", "HostPort": inside}]
        assert bound == ({f"{inside}/tcp": here} if network == "bridge" else {})
        assert {m["Source"]: m["RW"] for m in seen["Mounts"]}[str(tmp_path / "cache")] is True
        assert (tmp_path / "cache" / "engine").exists(), "what it keeps there is kept"
    finally:
        stop_endpoint("trade", tmp_path)
    assert containers(engine) == []
    assert not process.port_served(endpoint.port)


def test_a_nim_without_a_key_starts_with_a_warning(engine, llama, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("NGC_API_KEY", raising=False)
    endpoint = start_endpoint(nim(), llama, tmp_path, silent)
    assert "NGC_API_KEY" not in httpx.get(f"{endpoint.url}/metadata", trust_env=False).json()
    assert (
        "The environment variable NGC_API_KEY is not set. Public NIM images from 2.0.10 on need no key" in caplog.text
    )
    stop_endpoint("nim", tmp_path)


def test_a_killed_container_is_failed_and_can_be_started_again(engine, llama, tmp_path):
    first = start_endpoint(nim(), llama, tmp_path, silent)
    with podman.client(engine) as api:
        api.kill(first.process.id)
    (seen,) = listing.list_records(tmp_path)
    assert (seen.state, seen.why.split(";")[0]) == (
        State.FAILED,
        f"Container {first.process.name} has ended",
    )
    assert docker.exit_code(first.process) == 137
    second = start_endpoint(nim(), llama, tmp_path, silent)
    assert second.state is State.HEALTHY
    assert containers(engine) == [second.process.id]
    with podman.client(engine) as api:
        api.kill(second.process.id)
        api.remove_container(second.process.id)
    assert probe.check(second).state is State.FAILED
    assert docker.exit_code(second.process) is None
    assert stop_endpoint("nim", tmp_path).why == "Its container had ended before."
    assert containers(engine) == []


def test_a_new_one_takes_over_from_an_old_one_though_both_listen_on_the_same_port_inside(engine, llama, tmp_path):
    line = f"{PYTHON} -m http.server 8000"
    old = start_endpoint(command(line, command={"port": 8000}), llama, tmp_path, silent)
    assert (old.state, old.port != 8000) == (State.UNVERIFIED, True)
    new = start_endpoint(command(line, command={"port": 8000}, threads=2), llama, tmp_path, silent)
    assert new.process.id != old.process.id
    assert containers(engine) == [new.process.id]
    limited = {"docker": {"mounts": podman.PROGRAMS, "memory_gib": 0.5, "cpus": 0.5}}
    newest = start_endpoint(command(line, command={"port": 8000}, threads=2, **limited), llama, tmp_path, silent)
    assert newest.process.id != new.process.id, "the container's limits are part of what is asked for"
    host = inspected(newest)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (2**29, 5 * 10**8)
    stop_endpoint("own", tmp_path)
    assert containers(engine) == []


def test_a_process_can_be_replaced_by_a_container_of_the_same_name(engine, llama, tmp_path):
    line = f"{PYTHON} -m http.server {{port}} --bind {{host}}"
    outside = ServeConfig(name="own", variant="command", command={"command_line": line})
    old = start_endpoint(outside, llama, tmp_path, silent)
    new = start_endpoint(command(line, command={"image": podman.BASE}), llama, tmp_path, silent)
    assert (old.runtime, new.runtime) == ("process", "docker")
    assert not process.alive(old.process)
    assert docker.alive(new.process)
    stop_endpoint("own", tmp_path)


def test_a_definition_may_name_the_folder_of_backend_ai(engine, llama, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "hello").write_text("x")
    (folder / "model-definition.yaml").write_text(
        f"models: [{{name: m, model_path: /models, service: {{start_command: [{PYTHON}, -m, http.server, '8080', -d, "
        "/models], port: 8080, health_check: {enable: false}}}]"
    )
    options = {"mounts": podman.PROGRAMS}
    config = ServeConfig(name="c", variant="custom", custom={"image": podman.BASE}, runtime="docker", docker=options)
    endpoint = start_endpoint(config, folder, tmp_path / "endpoints", silent)
    assert httpx.get(f"{endpoint.url.removesuffix('v1')}hello", trust_env=False).text == "x"
    stop_endpoint("c", tmp_path / "endpoints")


def test_a_server_that_will_not_end_is_killed_with_all_it_started(engine, llama, tmp_path):
    script = f"trap '' TERM; setsid {PYTHON} -c 'import time; time.sleep(777)' & {PYTHON} -m http.server {{port}}; wait"
    endpoint = start_endpoint(command(f'/bin/sh -c "{script}"'), llama, tmp_path, silent)
    assert running("import time; time.sleep(777)")
    began = time.monotonic()
    assert docker.stop(endpoint.process, endpoint.port, grace_s=1) == [endpoint.process.name]
    assert 1 <= time.monotonic() - began < 8
    assert running("import time; time.sleep(777)") == []
    assert containers(engine) == []
    assert docker.stop(endpoint.process, endpoint.port) == []


@pytest.mark.parametrize(
    ("variables", "code", "cause"),
    [(["EXIT_CODE=3"], 3, Cause.OUT_OF_MEMORY), (["EXIT_CODE=0"], 0, Cause.OUT_OF_MEMORY)],
)
def test_a_container_that_ends_while_starting_is_told_at_once_with_its_log(
    engine, llama, tmp_path, variables, code, cause
):
    began = time.monotonic()
    with pytest.raises(StartError) as error:
        start_endpoint(nim(variables=variables), llama, tmp_path, silent)
    assert time.monotonic() - began < 20
    assert f"with exit code {code}.\nCause: {cause.words}." in str(error.value)
    assert any("CUDA out of memory" in line for line in error.value.log_lines)
    (log,) = (tmp_path / "logs").glob("nim-*.log")
    assert "CUDA out of memory" in log.read_text()
    assert containers(engine) == []
    assert records.names(tmp_path) == []


def test_last_words_written_in_pieces_are_told(engine, llama, tmp_path):
    pieces = "printf CUDA >&2; sleep 0.2; printf ' out of memory' >&2; sleep 0.2; echo >&2; : {port}; exit 3"
    with pytest.raises(StartError) as error:
        start_endpoint(command(f'/bin/sh -c "{pieces}"'), llama, tmp_path, silent)
    assert error.value.log_lines == ["CUDA out of memory"]


def test_a_budget_that_is_too_short_ends_the_container(engine, llama, tmp_path):
    with pytest.raises(StartError, match=r"was not healthy within startup_budget_s=2 s .*ready answered 503"):
        start_endpoint(nim(variables=["LOAD_S=60"], startup_budget_s=2), llama, tmp_path, silent)
    assert containers(engine) == []


def test_an_interrupted_start_leaves_no_container(engine, llama, tmp_path):
    def interrupt(done, total, note="", /, **_):
        if done > 1:
            assert len(containers(engine)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_endpoint(nim(variables=["LOAD_S=60"]), llama, tmp_path, interrupt)
    assert containers(engine) == []
    assert records.names(tmp_path) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (nim(docker_options={"image": "registry.invalid/no/such:1"}), 
         "The image registry.invalid/no/such:1 is not on this machine and cannot be pulled: "),
        (nim(docker_options={"image": "Not an image"}), "is no image's name"),
        (command("/no/such/program {port}"), "Cause: missing program. The program or Python package"),
        (nim(docker_options={"gpus": 1}), "The engine cannot give GPUs: install the NVIDIA Container Toolkit"),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_start_is_told_and_leaves_nothing(engine, llama, tmp_path, config, message):
    if config.docker.gpus and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU to give")
    with pytest.raises(ServingError) as error:
        start_endpoint(config, llama, tmp_path, silent)
    assert message in str(error.value)
    assert containers(engine) == []
    assert records.names(tmp_path) == []


def test_a_taken_port_is_told_with_who_has_it(engine, llama, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=rf"port: {port} on 127\.0\.0\.1 is taken by process {os.getpid()}"):
            start_endpoint(nim(port=port), llama, tmp_path, silent)
    assert containers(engine) == []


def test_an_orphan_is_found_by_its_label_and_ended_and_nothing_else_is(engine, llama, tmp_path):
    mine, others = tmp_path / "mine", tmp_path / "others"
    kept = start_endpoint(nim("kept"), llama, mine, silent)
    orphan = start_endpoint(nim("orphan"), llama, mine, silent)
    strange = start_endpoint(nim("strange"), llama, others, silent)
    assert docker.list_owned(mine) in (
        [("kept", kept.process), ("orphan", orphan.process)],
        [("orphan", orphan.process), ("kept", kept.process)],
    )
    line = f"{PYTHON} -m http.server {{port}} --bind {{host}}"
    plain = ServeConfig(name="plain", variant="command", command={"command_line": line})
    lost = start_endpoint(plain, llama, mine, silent)
    assert process.list_owned(mine) == [("plain", lost.process)]
    assert end_orphans(mine) == []

    records.delete(mine, "orphan")
    records.delete(mine, "plain")
    with records.starting(mine, "orphan"):
        assert end_orphans(mine) == [f"process {lost.process.pid} of plain"]
    assert end_orphans(mine) == [f"container {orphan.process.name} of orphan"]
    assert end_orphans(mine) == []
    assert not process.alive(lost.process)
    assert set(containers(engine)) == {kept.process.id, strange.process.id}
    stop_endpoint("kept", mine)
    stop_endpoint("strange", others)
    assert docker.list_owned(mine) == []


START = """
import sys
from pathlib import Path
from flows.progress import silent
from flows.serving.config import ServeConfig
from flows.serving.promotion import start_endpoint
start_endpoint(ServeConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), silent)
"""


def test_a_killed_start_leaves_a_container_that_the_next_start_clears(engine, llama, tmp_path):
    arguments = [nim(variables=["LOAD_S=60"]).model_dump_json(), str(llama), str(tmp_path)]
    starter = subprocess.Popen([sys.executable, "-c", START, *arguments])
    until = time.monotonic() + 60
    while not records.names(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    (left,) = listing.list_records(tmp_path)
    assert (left.name, left.state) == ("nim.next", State.STARTING)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    assert docker.alive(left.process)
    endpoint = start_endpoint(nim(), llama, tmp_path, silent)
    assert containers(engine) == [endpoint.process.id]
    stop_endpoint("nim", tmp_path)


def test_an_image_that_is_not_here_is_pulled(llama, tmp_path):
    notes = []
    with (
        image_registry.registry(podman.root(podman.NIM_FILES), podman.NIM_COMMAND) as address,
        podman.engine(plain_registry=address) as other,
    ):
        options = {"socket": other, "image": f"{address}/nim/small:1"}
        endpoint = start_endpoint(
            nim(docker_options=options), llama, tmp_path, lambda done, total, note="", /, **_: notes.append(note)
        )
        assert endpoint.state is State.HEALTHY
        assert notes[0] == f"pulling {address}/nim/small:1"
        assert inspected(endpoint)["Config"]["Image"] == f"{address}/nim/small:1"
        assert docker.stop(endpoint.process, endpoint.port) == [endpoint.process.name]
        options["image"] = f"{address}/nim/small:2"
        with pytest.raises(ServingError, match=r"cannot be pulled: .*manifest unknown.*Check name and tag\."):
            start_endpoint(nim(docker_options=options), llama, tmp_path, silent)


@pytest.mark.fault(
    "download that stalls",
    on="of an image",
    expected="FAILED when its startup budget is over (3 s here), saying that it was still being pulled",
    action="nothing is started; a pull that the engine ends later stays in it",
)
def test_a_pull_that_stalls_ends_with_the_budget(llama, tmp_path, seen):
    layer = podman.root(podman.NIM_FILES | {"opt/more": Path(__file__)})  # one that the engine has of no other image
    with (
        image_registry.registry(layer, podman.NIM_COMMAND, stalls=True) as address,
        podman.engine(plain_registry=address) as other,
    ):
        options = {"socket": other, "image": f"{address}/nim/small:1"}
        seen.begin()
        with pytest.raises(ServingError, match=r"was not pulled within 3 s: it was still downloading\.") as error:
            start_endpoint(nim(docker_options=options, startup_budget_s=3), llama, tmp_path, silent)
        seen(error.value)
        assert containers(other) == []
        assert records.names(tmp_path) == []


@pytest.mark.fault(
    "100 start/stop cycles",
    on="5 cycles of containers",
    expected="no container, port, process or temporary file is left",
    action="kept on purpose: the record, revisions and logs",
)
def test_cycles_leave_no_container(engine, llama, tmp_path, seen):
    endpoints, ports = tmp_path / "endpoints", set()
    seen.begin()
    for number in range(5):
        endpoint = start_endpoint(nim(threads=1 + number), llama, endpoints, silent)
        ports.add(endpoint.port)
        assert containers(engine) == [endpoint.process.id]
        stopped = stop_endpoint("nim", endpoints)
        assert containers(engine) == []
    seen(stopped)
    assert not [port for port in ports if process.port_served(port)]
    assert docker.list_owned(endpoints) == []
    left = {path.name for path in endpoints.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert left == {
        "nim.json",
        ".nim.lock",
        ".nim.promotion.lock",
        docker.ENGINES,
        *(f"{number}.json" for number in range(1, 6)),
    }


def test_an_engine_without_an_init_program_still_serves(llama, tmp_path, caplog):
    with podman.engine('init_path = "/no/such/program"\n') as other:
        config = nim(docker_options={"socket": other})
        endpoint = start_endpoint(config, llama, tmp_path, silent)
        assert endpoint.state is State.HEALTHY
        assert "has no init program" in caplog.text
        assert not inspected(endpoint)["HostConfig"].get("Init")
        docker.stop(endpoint.process, endpoint.port, grace_s=1)  # without an init, a plain server never hears TERM
        assert containers(other) == []
