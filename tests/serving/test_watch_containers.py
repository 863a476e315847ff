"""The watcher over real containers: what it sees of them, starts again, pulls first, and sweeps up."""

import shutil
import time
from datetime import timedelta

import pytest

from flows.progress import silent
from flows.serving import history, records
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import docker
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.sweep import end_orphans
from flows.serving.watch import watch
from tests.serving import image_registry, podman
from tests.serving.test_docker import containers, nim
from tests.serving.world import NOON

pytestmark = [pytest.mark.end_to_end, pytest.mark.skipif(bool(podman.missing()), reason=podman.missing())]


@pytest.fixture(scope="module")
def engine():
    with podman.engine() as socket_path:
        yield socket_path


class Watch:
    """Passes at times of our choice; what changed, in words."""

    def __init__(self, folder):
        self.folder, self.now = folder, NOON

    def __call__(self, seconds=60):
        self.now += timedelta(seconds=seconds)
        return [change.what for change in watch(self.folder, self.now)]

    def why(self, name="nim"):
        return history.load(self.folder, name).why

    def until(self, what, name="nim"):
        """Passes a second apart until something changes, which is `what`."""
        deadline = time.monotonic() + 60
        while not (seen := self(1)):
            assert time.monotonic() < deadline, self.why(name)
            time.sleep(0.2)
        assert seen == what, self.why(name)


def kill(endpoint, remove=False):
    with podman.client(endpoint.process.socket) as api:
        api.kill(endpoint.process.id)
        if remove:
            api.remove_container(endpoint.process.id, force=True)


@pytest.mark.fault(
    "kill -9 of the server",
    on="a container",
    expected="FAILED at the next pass, with exit code 137",
    action="its log is kept, the dead container removed; started again after 10 s, same address and revision",
)
def test_a_killed_container_is_seen_and_started_again_with_its_address_and_revision(engine, llama, tmp_path, seen):
    one = Watch(tmp_path)
    first = start_endpoint(nim(docker_options={"socket": engine}, variables=["LOAD_S=1"]), llama, tmp_path, silent)
    assert one() == ["promoted", "healthy"]
    kill(first)
    assert one() == ["failed"]
    assert one.why().startswith(f"Container {first.process.name} has ended;")
    assert " Its exit code is 137. " in one.why()
    seen(history.load(tmp_path, "nim"), passes_s=60)
    assert containers(engine) == [], "its log is kept, the dead container is not"
    assert one() == ["starting"]
    again = records.load(tmp_path, "nim")
    assert (again.url, again.revision, again.process == first.process) == (first.url, 1, False)
    assert containers(engine) == [again.process.id]
    one.until(["healthy"])
    assert records.load(tmp_path, "nim").state is State.HEALTHY
    kill(again, remove=True)
    assert one() == ["failed"]
    stop_endpoint("nim", tmp_path)
    assert containers(engine) == []


def test_a_restart_of_the_machine_is_told_of_containers_too(engine, llama, tmp_path):
    one = Watch(tmp_path)
    endpoint = start_endpoint(nim(docker_options={"socket": engine}), llama, tmp_path, silent)
    one()
    assert not docker.rebooted(endpoint.process)
    kill(endpoint)
    before = endpoint.process.model_copy(update={"boot_id": "another-boot"})
    records.save(tmp_path, endpoint.model_copy(update={"process": before}))
    assert one() == ["failed"]
    assert "The machine was started again since." in one.why()
    stop_endpoint("nim", tmp_path)


def test_a_pass_ends_containers_without_a_record_also_in_an_engine_that_is_not_the_usual_one(
    engine, llama, tmp_path, monkeypatch
):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    mine, others = tmp_path / "mine", tmp_path / "others"
    one = Watch(mine)
    options = {"socket": engine}
    kept = start_endpoint(nim("kept", docker_options=options), llama, mine, silent)
    orphan = start_endpoint(nim("orphan", docker_options=options), llama, mine, silent)
    strange = start_endpoint(nim("strange", docker_options=options), llama, others, silent)
    one()
    assert len(containers(engine)) == 3
    records.delete(mine, "orphan")
    with records.starting(mine, "orphan"):
        one()
        assert orphan.process.id in containers(engine), "somebody is about to write its record"
    one()
    assert set(containers(engine)) == {kept.process.id, strange.process.id}

    (mine / "kept.json").write_text("torn")
    assert end_orphans(mine) == [], "whose record is damaged is not known to be an orphan"
    records.save(mine, kept)
    (mine / docker.ENGINES).write_text(f"/no/such.sock\n{__file__}\n{engine}\n")
    assert [name for name, _ in docker.list_owned(mine)] == ["kept"], "an engine that is gone hides no other"
    for name, folder in (("kept", mine), ("strange", others)):
        stop_endpoint(name, folder)
    assert containers(engine) == []


def test_a_restart_that_must_pull_its_image_holds_up_no_pass(llama, tmp_path):
    one = Watch(tmp_path)
    layer = podman.root(podman.NIM_FILES)
    with (
        image_registry.registry(layer, podman.NIM_COMMAND) as address,
        podman.engine(plain_registry=address) as other,
    ):
        image = f"{address}/nim/small:1"
        options = {"socket": other, "image": image}
        first = start_endpoint(nim(docker_options=options), llama, tmp_path, silent)
        one()
        forget(first, image)
        assert one() == ["failed"]
        assert one() == []
        assert (
            one.why()
            == f"Its image {image} is not on this machine and is being pulled. It is started again after that."
        )
        assert history.load(tmp_path, "nim").restarts == 0, "waiting is no try"
        one.until(["starting"])
        one.until(["healthy"])

        forget(records.load(tmp_path, "nim"), image)
        shutil.move(other, f"{other}.away")
        assert one() == [], "an engine that does not answer says nothing of its containers"
        shutil.move(f"{other}.away", other)
        one.until(["failed"])
        stop_endpoint("nim", tmp_path)
    assert not list(tmp_path.glob("logs/pull-*.json")), "no pull is left over"


def forget(endpoint, image):
    """The container is killed, and its image is removed from the machine."""
    kill(endpoint, remove=True)
    with podman.client(endpoint.process.socket) as api:
        api.remove_image(image, force=True)


def test_a_pull_that_fails_counts_as_a_try_and_says_why(llama, tmp_path):
    one = Watch(tmp_path)
    with (
        image_registry.registry(podman.root(podman.NIM_FILES), podman.NIM_COMMAND) as address,
        podman.engine(plain_registry=address) as other,
    ):
        image = f"{address}/nim/small:1"
        first = start_endpoint(nim(docker_options={"socket": other, "image": image}), llama, tmp_path, silent)
        one()
    with podman.engine(plain_registry="127.0.0.1:1") as empty:
        moved = first.process.model_copy(update={"socket": empty})
        records.save(tmp_path, first.model_copy(update={"process": moved}))
        file = tmp_path / "nim" / "revisions" / "1.json"
        file.write_text(file.read_text().replace(other, empty))
        assert one() == ["failed"]
        deadline = time.monotonic() + 60
        while "could not be started again" not in one.why() and time.monotonic() < deadline:
            one(1)
            time.sleep(0.2)
        assert f"The image {image} is not on this machine and cannot be pulled: " in one.why()
        assert history.load(tmp_path, "nim").restarts == 1
