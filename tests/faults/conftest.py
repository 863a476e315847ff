import subprocess
from pathlib import Path

import pytest

from flows.serving.stop import stop_endpoint
from tests.serving.world import World


@pytest.fixture
def world(tmp_path):
    """An endpoint on a server that can be told to fail, and passes of the watcher at times of the test's choice."""
    world = World(tmp_path)
    yield world
    stop_endpoint("fake", world.folder)


@pytest.fixture(scope="session")
def llama(tiny_models):
    """Folder of a tiny random Llama."""
    return Path(tiny_models["llama-3"])


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own with room for 3 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can only be mounted as root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
