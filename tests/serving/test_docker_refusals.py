"""What the runtime `docker` refuses before anything starts, engine or not."""

import os
import socket
import threading

import pytest
from pydantic import ValidationError

from flows.errors import ServingError
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ContainerRecord, Endpoint
from flows.serving.runtimes import docker, engine, process
from flows.serving.start import problems
from flows.serving.state import State

VLLM = {"variant": "vllm", "vllm": {"image": "vllm:1"}}


def told(tmp_path, options, **settings):
    """All problems but the missing engine's, which must be there too."""
    config = ServeConfig(runtime="docker", docker={"socket": str(tmp_path / "none.sock")} | options, **settings)
    *found, engine_problem = problems(config)
    assert engine_problem.startswith("serve.docker.socket: There is no container engine: there is no ")
    assert "systemctl start docker" in engine_problem
    return found


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"gpus": 1.7}, VLLM, "serve.docker.gpus: 1.7 GPUs cannot be given: give a whole number, or less than 1"),
        ({"gpus": 0.5}, {"variant": "nim", "nim": {"image": "nim:1"}}, "nim cannot keep to a share of one: give 1, or"),
        ({"gpus": 0.5}, VLLM, "for 0.5 of one set serve.vllm.gpu_memory_utilization to at most 0.5"),
        ({"gpus": 2, "gpu_ids": ["3"]}, VLLM, "serve.docker.gpu_ids: 1 are named, serve.docker.gpus says 2."),
        (
            {"gpus": 1},
            {"variant": "vllm", "vllm": {"image": "vllm:1", "tensor_parallel_size": 2}},
            "serve.docker.gpus: serve.vllm.tensor_parallel_size needs 2 GPUs, not 1.",
        ),
        ({"mounts": ["/no/such/folder:/data"]}, VLLM, "serve.docker.mounts: there is no /no/such/folder on this"),
        ({}, {"variant": "transformers"}, "serve.transformers.image: name an image"),
        ({}, {"variant": "nim"}, "serve.nim.image: name a NIM image with its tag"),
        ({}, {"variant": "command", "command": {"command_line": "serve {port}"}}, "serve.command.image: name the"),
        ({}, {"variant": "custom"}, "serve.custom.image: name the image"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_with_its_field(tmp_path, options, settings, message):
    (problem,) = told(tmp_path, options, **settings)
    assert message in problem


@pytest.mark.parametrize("image", ["../../etc", "a//b", "https://x/y", "Upper", "a b", "x:", "x\n", "a/../b", "-x"])
def test_what_is_no_image_s_name_is_refused_by_its_field(tmp_path, image):
    (problem,) = told(tmp_path, {}, variant="vllm", vllm={"image": image})
    assert problem.startswith(f"serve.vllm.image: {image!r} is no image's name; give one as ")
    assert "serve.docker.image" in told(tmp_path, {"image": image}, **VLLM)[0]


@pytest.mark.parametrize(
    "image",
    [
        "vllm",
        "vllm/vllm-openai:v0.32.0",
        "localhost:5000/a/b_c__d.e--f:latest",
        "nvcr.io/nim/meta/llama-3.1-8b-instruct:2.0.11",
        "ghcr.io/ggml-org/llama.cpp:server@sha256:" + "0af1" * 16,
        "Registry.example.org/x",
        "0af1" * 16,
    ],
)
def test_the_names_that_engines_take_are_not_refused(tmp_path, image):
    assert told(tmp_path, {"image": image}, **VLLM) == []


def test_what_can_work_is_not_refused(tmp_path):
    shared = {"image": "vllm:1", "gpu_memory_utilization": 0.5}
    assert told(tmp_path, {"gpus": 0.5}, variant="vllm", vllm=shared) == []
    assert told(tmp_path, {"gpus": 2, "gpu_ids": ["0", "GPU-8932f937-d72c"]}, **VLLM) == []
    assert told(tmp_path, {"mounts": [f"{tmp_path}:/data:rw"], "memory_gib": 4, "cpus": 1.5}, **VLLM) == []
    assert told(tmp_path, {"image": "mine:1"}, variant="transformers") == []  # in place of the variant's


@pytest.mark.parametrize(
    "options", [{"mounts": ["data:/data"]}, {"mounts": ["/a:/b:x"]}, {"gpus": -1}, {"gpu_ids": ["a b"]}, {"shm_gib": 0}]
)
def test_values_that_make_no_sense_are_refused_by_the_form(options):
    with pytest.raises(ValidationError, match=next(iter(options))):
        ServeConfig(docker=options)


def test_a_nim_needs_a_container():
    assert "nim is a container image and does not run as a plain process" in problems(ServeConfig(variant="nim"))[0]


def test_the_engine_of_another_machine_is_refused(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.7:2375")
    (problem,) = problems(ServeConfig(runtime="docker", **VLLM))
    assert "tcp://10.0.0.7:2375 is no socket of this machine. The model folder is mounted from this" in problem
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/mine.sock")
    assert engine.socket_path("") == "/run/mine.sock"
    assert engine.socket_path("unix:///other.sock") == "/other.sock"


def test_the_usual_sockets_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if os.path.exists("/var/run/docker.sock"):
        pytest.skip("this machine has a Docker engine, which comes first")
    assert engine.socket_path("") == "/var/run/docker.sock"
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()
    assert engine.socket_path("") == f"{tmp_path}/podman/podman.sock"


def test_a_socket_that_nobody_serves(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(ServingError, match=r"No container engine answers at .*/s: Connection refused"):
        engine.connect(str(tmp_path / "s")).__enter__()


def test_a_socket_behind_which_is_no_engine(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()

        def hang_up():
            for _ in range(2):
                connection, _ = other.accept()
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(ServingError, match=r"The container engine at .*/s does not answer as one"):
            engine.connect(str(tmp_path / "s")).__enter__()
        thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not")
def test_a_socket_that_this_user_may_not_use(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locked")
    with socket.socket(socket.AF_UNIX) as owned:
        owned.bind(str(folder / "s"))
        os.chmod(folder / "s", 0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(ServingError, match=r"permission denied\. Join its group \(sudo usermod -aG docker"):
                engine.connect(str(folder / "s")).__enter__()
        finally:
            os.seteuid(0)


def test_while_the_engine_is_away_a_container_counts_as_alive_and_cannot_be_stopped(tmp_path):
    record = ContainerRecord(id="0" * 64, name="a-1", socket=str(tmp_path / "none"), log=str(tmp_path / "log"))
    assert docker.alive(record)
    (tmp_path / "log").write_text("one\ntwo\n")
    assert docker.logs(record, 1) == ["two"]
    with pytest.raises(ServingError, match="There is no container engine"):
        docker.stop(record, 1)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (b'could not select device driver "" with capabilities: [[gpu]]', "install the NVIDIA Container Toolkit"),
        ("driver failed programming: Bind for 127.0.0.1:80 failed: port is already allocated", "The port is taken"),
        ("pull access denied for x, repository does not exist or may require 'docker login'", "Log in to its registry"),
        ("manifest for python:99 not found: manifest unknown: manifest unknown", "Check name and tag."),
        ("something new", "something new."),
    ],
)
def test_what_engines_say_gets_a_remedy(said, remedy):
    assert remedy in engine.words(said)


def test_records_hold_a_process_or_a_container_and_old_ones_are_read(tmp_path):
    common = {"name": "a", "url": "http://127.0.0.1:1/v1", "state": State.HEALTHY, "model": "m", "variant": "vllm"}
    common |= {"port": 1, "ready_path": "/health", "settings": "x", "started": "2026-01-01T00:00:00+00:00"}
    old = {"pid": 7, "start_ticks": 8, "boot_id": "b", "log": "/l"}
    new = {"id": "ab", "name": "a-1", "socket": "/s", "log": "/l"}
    for runtime, record, words in (("process", old, "process 7"), ("docker", new, "container a-1")):
        endpoint = Endpoint(runtime=runtime, process=record, **common)
        again = Endpoint.model_validate_json(endpoint.model_dump_json())
        assert again == endpoint
        assert again.process.model_dump(exclude_defaults=True) == record
        assert (again.process.words, again.log) == (words, "/l")


def test_a_container_has_a_place_of_its_own(tmp_path):
    bridge = docker.place(tmp_path, 8123, ServeConfig(runtime="docker"))
    assert (bridge.host, bridge.port, bridge.model_path, bridge.own_network) == ("0.0.0.0", 8123, str(tmp_path), True)
    host = docker.place(tmp_path, 8123, ServeConfig(runtime="docker", docker={"network": "host"}))
    assert (host.host, host.container, host.own_network) == (process.HOST, True, False)
