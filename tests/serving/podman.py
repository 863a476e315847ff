"""A real container engine of the tests' own: Podman, started without systemd or cgroups, and small images for it.

The images hold next to nothing: programs come from this machine's /usr and Python, mounted read-only.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

BASE, NIM, UNUSED = "localhost/finetune-base:1", "localhost/finetune-nim:1", "localhost/finetune-none:1"
PROGRAMS = [
    f"{folder}:{folder}"
    for folder in sorted({"/usr", sys.base_prefix, sys.prefix} - {"/"})
    if folder == "/usr" or not folder.startswith("/usr/")
]
NIM_FILES = {"opt/nim/server.py": Path(__file__).with_name("nim_shaped.py")}
NIM_COMMAND = [f"{sys.base_prefix}/bin/python3", "/opt/nim/server.py"]
SETTINGS = """
[containers]
cgroups = "disabled"
netns = "host"
seccomp_profile = "unconfined"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# The mount namespace is the engine's own, so that nothing of this machine's is unmounted.
SERVICE = """
umount /sys/fs/cgroup/unified 2>/dev/null
exec podman --root "$0/root" --runroot "$0/run" --storage-driver vfs --log-level warn \
  system service --time=0 "unix://$0/engine.sock"
"""


def missing() -> str:
    """Why no engine can be started here; empty if one can."""
    if absent := [name for name in ("podman", "crun", "catatonit", "unshare") if not shutil.which(name)]:
        return f"no container engine: {', '.join(absent)} not installed; `make engine` as root installs it"
    return "" if os.geteuid() == 0 else "no container engine: starting one takes root"


@contextmanager
def engine(extra_settings="", plain_registry="127.0.0.1:1"):
    """The socket of a fresh engine, which asks that registry without TLS; what runs in it at the end is ended."""
    folder = Path(tempfile.mkdtemp(prefix="podman-"))  # short: the path of a socket has 108 bytes at most
    (folder / "containers.conf").write_text(SETTINGS + extra_settings)
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{plain_registry}"\ninsecure = true\n')
    files = ("CONTAINERS_CONF", "containers.conf"), ("CONTAINERS_REGISTRIES_CONF", "registries.conf")
    environment = os.environ | {variable: str(folder / name) for variable, name in files}
    socket = folder / "engine.sock"
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", SERVICE, str(folder)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 20
        while not socket.exists() and service.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if not socket.exists():
            pytest.skip(f"no container engine: podman does not start here: {(folder / 'log').read_text()[-300:]}")
        add_images(str(socket))
        if why := cannot_run(str(socket)):
            pytest.skip(f"no container engine: podman runs no container on its bridge here: {why}")
        yield str(socket)
    finally:
        with suppress(Exception), client(str(socket)) as api:
            for container in api.containers(all=True):
                with suppress(docker.errors.APIError):
                    api.kill(container["Id"])
                api.remove_container(container["Id"], force=True, v=True)
        os.killpg(service.pid, signal.SIGTERM)
        service.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def client(socket):
    api = docker.APIClient(f"unix://{socket}", version="auto")
    try:
        yield api
    finally:
        api.close()


def add_images(socket):
    with client(socket) as api:
        api.import_image_from_data(root({}), repository=BASE, changes=['CMD ["/bin/false"]'])
        api.import_image_from_data(root(NIM_FILES), repository=NIM, changes=[f"CMD {json.dumps(NIM_COMMAND)}"])


def cannot_run(socket):
    """What the engine says when it cannot run even `true` on its own network; empty if it can."""
    with client(socket) as api:
        made = api.create_container(
            BASE, ["/usr/bin/true"], host_config=api.create_host_config(binds=["/usr:/usr:ro"], network_mode="bridge")
        )
        try:
            api.start(made["Id"])
            api.wait(made["Id"], timeout=30)  # what is just ending cannot be removed
        except docker.errors.APIError as error:
            return str(error.explanation)[-300:]
        finally:
            api.remove_container(made["Id"], force=True)
    return ""


def root(files):
    """A root file system to mount programs into, as a tar."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("dev", "etc", "opt", "opt/nim", "proc", "root", "run", "sys", "tmp", "usr"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for name in ("bin", "lib", "lib64", "sbin"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        tar.add("/etc/ld.so.cache", "etc/ld.so.cache")
        for name, source in files.items():
            tar.add(source, name)
    return data.getvalue()
