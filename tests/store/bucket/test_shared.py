"""Two machines that share only a bucket."""

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore

from flows.errors import ConfigError
from flows.store.artifacts import damage, publish
from flows.store.attempts import SupersededError
from flows.store.bucket import checkpoints, folders
from flows.store.bucket.client import BucketError
from flows.store.bucket.shared import SharedStore
from flows.store.digest import folder_checksums
from flows.store.files import write_atomically
from flows.store.opening import open_store
from flows.training.checkpoints import mark_whole, newest_whole

KEY = "finetune-a"


def nobody():
    pytest.fail("somebody holds the key")


def output(store, text="weights"):
    folder = store.work(KEY) / "output"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "model").write_text(text)
    (folder / "config.json").write_text("{}")
    return folder


def made(store, text="weights", maker="first"):
    """What `make` does: an artifact and the word that it is done, in store and bucket."""
    with store.hold(KEY, nobody) as attempt:
        store.fetch_result(KEY, here=True)
        artifact = publish(store, "model", output(store, text), {}, attempt)
        store.share_artifact(Path(artifact.path), attempt)
        result = {
            "artifact": artifact.model_dump() | {"path": store.relative(Path(artifact.path))},
            "maker": {"run_id": maker},
        }
        with attempt.committing():
            store.share_result(KEY, result, {"config": {"rate": 1}})
    return artifact


def done(store):
    file = store.work(KEY) / "done.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_what_one_machine_has_made_another_one_has(machine):
    first, second = machine("first"), machine("second")
    artifact = made(first)
    second.fetch_result(KEY, here=True)
    assert done(second)["maker"] == {"run_id": "first"}
    here = artifact.model_copy(update={"path": str(second.place(done(second)["artifact"]["path"]))})
    assert Path(here.path, "sub", "model").read_text() == "weights"
    assert damage(second, here) == ""
    assert json.loads((second.work(KEY) / "depends.json").read_text()) == {"config": {"rate": 1}}
    assert second.root != first.root


def test_the_record_of_prefect_is_read_where_it_is_then(machine):
    first, second = machine("first"), machine("second")
    record = {"metadata": {"storage_key": str(first.results / KEY), "serializer": {"type": "json"}}, "result": "1"}
    write_atomically(first.results / KEY, json.dumps(record))
    made(first)
    first.share_files([first.results / KEY])
    second.fetch_result(KEY, here=True)
    store = ResultStore(result_storage=LocalFileSystem(basepath=str(second.results)))
    assert store.read(KEY).result == 1
    assert store.read(KEY).metadata.storage_key == str(second.results / KEY)


def test_what_is_not_wanted_here_stays_there(machine):
    first, second = machine("first"), machine("second")
    made(first)
    second.fetch_result(KEY, here=False)
    path = done(second)["artifact"]["path"]
    assert second.elsewhere(path)
    assert not second.place(path).exists()
    assert second.fetch(path)
    assert not second.elsewhere(path)


@pytest.mark.parametrize("harm", ["changed", "gone", "manifest"])
def test_what_was_corrupted_in_the_bucket_is_said_and_can_be_made_again(machine, harm):
    first, second = machine("first"), machine("second")
    artifact = made(first)
    name = first.relative(Path(artifact.path))
    if harm == "changed":
        first.bucket.write(f"{name}/sub/model", b"wrights")
    elif harm == "gone":
        first.bucket.delete([f"{name}/sub/model"])
    else:
        first.bucket.write(f"{name}/manifest.json", b"{")
    second.fetch_result(KEY, here=True)
    assert done(second) is None
    words = {"changed": "model is not what was written", "gone": "model is missing", "manifest": "unreadable"}[harm]
    assert words in second.told[0]
    assert "is damaged: " in second.told[0]
    assert "It is made anew." in second.told[0]

    made(second, maker="second")
    third = machine("third")
    third.fetch_result(KEY, here=True)
    assert done(third)["maker"] == {"run_id": "second"}
    assert (third.told, third.place(name).exists()) == ([], True)


def test_a_damaged_copy_is_taken_from_the_bucket_anew(machine):
    store = machine("first")
    artifact = made(store)
    file = Path(artifact.path, "sub", "model")
    file.write_text("wrights")
    assert store.restore(artifact.path)
    assert (file.read_text(), damage(store, artifact)) == ("weights", "")


def test_an_upload_that_was_torn_is_not_there(machine, monkeypatch):
    first, second = machine("first"), machine("second")
    upload = type(first.bucket).upload

    def torn(self, file, name):
        if name.endswith("sub/model"):
            raise BucketError("The cable is out.")
        upload(self, file, name)

    with monkeypatch.context() as cable:
        cable.setattr(type(first.bucket), "upload", torn)
        with pytest.raises(BucketError):
            made(first)
    second.fetch_result(KEY, here=True)
    assert done(second) is None
    assert first.bucket.entries("artifacts/"), "a part of it lies there"
    made(second, maker="second")
    assert done(first) is None
    first.fetch_result(KEY, here=True)
    assert done(first)["maker"] == {"run_id": "second"}


def test_two_machines_that_want_the_same_make_it_once(machine):
    stores = [machine(str(number)) for number in range(3)]
    makers = []

    def work(store):
        with store.hold(KEY, lambda: None) as attempt:
            store.fetch_result(KEY, here=True)
            if (store.work(KEY) / "done.json").exists():
                return
            makers.append(store)
            artifact = publish(store, "model", output(store), {}, attempt)
            store.share_artifact(Path(artifact.path), attempt)
            result = {"artifact": artifact.model_dump() | {"path": store.relative(Path(artifact.path))}}
            with attempt.committing():
                store.share_result(KEY, result, {})

    workers = [threading.Thread(target=work, args=[store]) for store in stores]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(makers) == 1
    assert len([name for name in stores[0].bucket.entries("artifacts/") if name.endswith("manifest.json")]) == 1
    assert all(done(store) is not None for store in stores if store is not makers[0])


def test_of_two_who_both_think_that_they_hold_the_key_one_publishes(machine):
    """The first slept past its lease; it wakes when the second has finished."""
    first, second = machine("first"), machine("second")
    with first.hold(KEY, nobody) as attempt:
        first.fetch_result(KEY, here=True)
        attempt.lease.ended.set()  # asleep: nothing is renewed
        artifact = publish(first, "model", output(first), {})
        second_artifact = made_by_another(second)
        with pytest.raises(SupersededError, match="The lease of .* is lost"), attempt.committing():
            pytest.fail("it does not hold the lease")
        with pytest.raises(SupersededError, match="Another machine has finished finetune-a meanwhile"):
            first.share_result(KEY, {"artifact": {"path": first.relative(Path(artifact.path))}}, {})
    first.fetch_result(KEY, here=True)
    assert done(first)["maker"] == {"run_id": "second"}
    assert second_artifact.digest == artifact.digest


def made_by_another(store):
    """It waits for the lease that nobody renews."""
    with store.hold(KEY, lambda: None) as attempt:
        store.fetch_result(KEY, here=True)
        artifact = publish(store, "model", output(store), {}, attempt)
        store.share_artifact(Path(artifact.path), attempt)
        result = {"artifact": artifact.model_dump() | {"path": store.relative(Path(artifact.path))}}
        with attempt.committing():
            store.share_result(KEY, result | {"maker": {"run_id": "second"}}, {})
    return artifact


def test_a_result_whose_garbage_was_removed_there_is_given_again_by_who_has_it(machine):
    first, second = machine("first"), machine("second")
    made(first)
    first.fetch_result(KEY, here=True)
    first.bucket.delete(list(first.bucket.entries("")))
    first.fetch_result(KEY, here=True)
    second.fetch_result(KEY, here=True)
    assert done(second) == done(first)
    assert second.place(done(second)["artifact"]["path"]).is_dir()


def test_reports_and_small_files_come_over(machine):
    first, second = machine("first"), machine("second")
    for name in ("report.json", "report.html", "progress.json", "promotion/new.jsonl"):
        file = first.run("7") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    first.share_run("7")
    assert sorted(first.bucket.entries("runs/")) == [
        f"runs/7/{n}" for n in ("promotion/new.jsonl", "report.html", "report.json")
    ]
    second.fetch_files([second.run("7") / "report.json", second.failure("none")])
    assert (second.run("7") / "report.json").read_text() == "report.json"


def test_former_results_of_a_stage_come_over_and_those_of_others_do_not(machine):
    first, second = machine("first"), machine("second")
    for key in ("finetune-a", "finetune-b", "evaluate-c"):
        for file in ("done.json", "depends.json"):
            first.bucket.write(f"work/{key}/{file}", b"{}")
    first.bucket.write("work/finetune-open/depends.json", b"{}")
    second.fetch_formers("finetune")
    assert sorted(path.parent.name for path in second.root.glob("work/*/done.json")) == ["finetune-a", "finetune-b"]


def test_an_artifact_is_found_by_the_beginning_of_its_name(machine):
    first, second = machine("first"), machine("second")
    artifact = made(first)
    second.fetch_beginning("model", artifact.digest[:8])
    assert second.place(first.relative(Path(artifact.path))).is_dir()


def checkpoint(folder, step, text="state"):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(f"{text} {step}")
    mark_whole(path)
    return path


def test_a_training_goes_on_elsewhere_from_its_newest_whole_checkpoint(machine):
    first, second = machine("first"), machine("second")
    folder = first.work(KEY) / "checkpoints"
    with first.hold(KEY, nobody) as attempt, first.sharing_checkpoints(KEY, attempt):
        checkpoint(folder, 5)
        wait_for(lambda: checkpoints.steps(first.bucket, f"work/{KEY}/checkpoints") == [5])
        checkpoint(folder, 10)
        (folder / "checkpoint-15").mkdir()  # not whole
        wait_for(lambda: checkpoints.steps(first.bucket, f"work/{KEY}/checkpoints") == [10])
    second.fetch_checkpoint(KEY)
    found = newest_whole(second.work(KEY) / "checkpoints")
    assert found.name == "checkpoint-10"
    assert {file.name for file in found.iterdir()} == {"model.safetensors", "whole.json"}
    assert (found / "model.safetensors").read_text() == "state 10"
    checkpoint(second.work(KEY) / "checkpoints", 20)
    second.fetch_checkpoint(KEY)
    assert newest_whole(second.work(KEY) / "checkpoints").name == "checkpoint-20"


def test_a_damaged_checkpoint_is_said_and_not_used(machine):
    first, second = machine("first"), machine("second")
    folder = first.work(KEY) / "checkpoints"
    with first.hold(KEY, nobody) as attempt:
        checkpoint(folder, 5)
        checkpoints.push_checkpoint(first.bucket, f"work/{KEY}/checkpoints", folder, 5, attempt)
    first.bucket.write(f"work/{KEY}/checkpoints/checkpoint-5/model.safetensors", b"others")
    second.fetch_checkpoint(KEY)
    assert "The checkpoint 5 in the bucket is damaged: model.safetensors is not what was written" in second.told[0]
    assert newest_whole(second.work(KEY) / "checkpoints") is None


def test_who_was_taken_over_pushes_no_checkpoint(machine):
    first, second = machine("first"), machine("second")
    folder = first.work(KEY) / "checkpoints"
    checkpoint(folder, 5)
    with first.hold(KEY, nobody) as attempt:
        attempt.lease.ended.set()
        with second.hold(KEY, lambda: None), pytest.raises(SupersededError):
            checkpoints.push_checkpoint(first.bucket, f"work/{KEY}/checkpoints", folder, 5, attempt)
    assert checkpoints.steps(first.bucket, f"work/{KEY}/checkpoints") == []


def test_what_is_finished_leaves_no_checkpoint(machine):
    store = machine("first")
    store.bucket.write(f"work/{KEY}/checkpoints/checkpoint-5/manifest.json", b"{}")
    made(store)
    assert not store.bucket.entries(f"work/{KEY}/checkpoints/")


def test_a_bucket_that_can_be_used_says_its_layout(machine):
    store = machine("first")
    store.check()
    store.check()
    assert json.loads(store.bucket.read("store.json").content) == {"layout": 2}


def test_a_newer_layout_in_the_bucket_is_refused(machine):
    store = machine("first")
    store.bucket.write("store.json", b'{"layout": 99}')
    with pytest.raises(ConfigError, match="run.store: the store s3://.* has layout 99"):
        store.check()
    assert store.bucket.read("store.json").content == b'{"layout": 99}'


def test_a_server_that_does_not_keep_conditions_is_refused(machine, monkeypatch):
    store = machine("first")
    store.check()
    monkeypatch.setattr(type(store.bucket), "write_if", lambda self, name, content, etag: self.write(name, content))
    with pytest.raises(ConfigError, match="run.store: the server of s3://.* does not keep If-None-Match"):
        store.check()
    assert json.loads(store.bucket.read("store.json").content) == {"layout": 2}


def test_a_bucket_that_cannot_be_reached_is_named_with_its_field(machine, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="^run.store: The bucket s3://.* did not let us .*127.0.0.1:9.*Look at the"):
        machine("first").check()


def test_a_store_is_opened_by_its_address(monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FINETUNE_STORE", "s3://bucket/prefix")
    found = open_store("")
    assert isinstance(found, SharedStore)
    assert (found.field, found.bucket.address.url) == ("FINETUNE_STORE", "s3://bucket/prefix")
    assert found.root.is_relative_to(tmp_path / "cache")
    assert not isinstance(open_store(str(tmp_path)), SharedStore)


NAMES = st.lists(st.text("ab é+#", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=3).map("/".join)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(NAMES, st.binary(max_size=100), min_size=1, max_size=4))
def test_any_folder_comes_back_as_it_was(bucket, tmp_path_factory, files):
    """Whatever its files are called; a name that is a folder of another one's cannot be."""
    files = {name: files[name] for name in files if not any(other.startswith(f"{name}/") for other in files)}
    folder, back = tmp_path_factory.mktemp("from"), tmp_path_factory.mktemp("to") / "x"
    for name, content in files.items():
        write_atomically(folder / name, content)
    facts = {name: {"sha256": sha, "bytes": len(files[name])} for name, sha in folder_checksums(folder).items()}
    place = f"any/{folder.name}"
    assert folders.push(bucket, folder, place, {"files": facts}, lambda: None)
    assert not folders.push(bucket, folder, place, {"files": facts}, lambda: None), "it is there already"
    assert folders.pull(bucket, place, back) == {"files": facts}
    assert {name: (back / name).read_bytes() for name in files} == files


def wait_for(what, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("torn", [b"[]", b"{}", b'{"artifact": 1}'])
def test_a_word_of_another_shape_in_the_bucket_is_forgotten(machine, torn):
    first, second = machine("first"), machine("second")
    made(first)
    first.bucket.write(f"work/{KEY}/done.json", torn)
    second.fetch_result(KEY, here=True)
    assert done(second) is None
    made(second, maker="second")
    first.fetch_result(KEY, here=True)
    assert done(first)["maker"]["run_id"] == "second"
