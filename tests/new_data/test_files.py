import hashlib
import os

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from moto.server import ThreadedMotoServer

from flows.errors import ConfigError, DataError
from flows.new_data.files import FileSeen, look, with_digests


@pytest.fixture
def bucket():
    """Files behind addresses that are no paths."""
    files = fsspec.filesystem("memory")
    files.pipe({"/bucket/terms/a.json": b"[1]", "/bucket/terms/deep/b.json": b"[2, 3]", "/bucket/x.csv": b"q,a"})
    yield files
    files.rm("/bucket", recursive=True)


def test_a_folder_is_seen_with_all_below_it_but_hidden_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "deep" / "b.json").write_text("[2, 3]")
    (tmp_path / ".a.json.part").write_text("[")
    found = look([str(tmp_path)])
    assert {name: seen.size for name, seen in found.items()} == {
        str(tmp_path / "a.json"): 3,
        str(tmp_path / "deep" / "b.json"): 6,
    }


def test_a_file_and_a_pattern_are_places_too(tmp_path):
    for name in ("a.json", "b.json", "c.csv"):
        (tmp_path / name).write_text(name)
    assert set(look([str(tmp_path / "a.json")])) == {str(tmp_path / "a.json")}
    assert set(look([f"{tmp_path}/*.json"])) == {str(tmp_path / "a.json"), str(tmp_path / "b.json")}


def test_an_address_is_looked_at_without_reading(bucket):
    found = look(["memory://bucket/terms", "memory://bucket/*.csv"])
    names = ["memory:///bucket/terms/a.json", "memory:///bucket/terms/deep/b.json", "memory:///bucket/x.csv"]
    assert sorted(found) == names
    assert all(seen.digest == seen.mark for seen in found.values())
    bucket.pipe("/bucket/terms/a.json", b"[4]")
    again = look(["memory://bucket/terms"])
    assert again[names[0]].digest != found[names[0]].digest, "same size, other content"
    assert again[names[1]] == found[names[1]]


def test_a_bucket_is_looked_at_by_its_own_marks(monkeypatch):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # one of another test has another address
        store = fsspec.filesystem("s3")
        store.mkdir("field")
        store.pipe({"field/terms/a.json": b"[1]", "field/terms/b.json": b"[2]"})
        first = look(["s3://field/terms"])
        store.pipe("field/terms/a.json", b"[9]")
        second = look(["s3://field/terms/*.json"])
        assert sorted(first) == sorted(second) == ["s3://field/terms/a.json", "s3://field/terms/b.json"]
        assert first["s3://field/terms/a.json"].digest == hashlib.md5(b"[1]").hexdigest()
        assert second["s3://field/terms/a.json"].digest == hashlib.md5(b"[9]").hexdigest()
        with pytest.raises(ConfigError, match="there is no file or folder 's3://field/none'"):
            look(["s3://field/none"])
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"places\[1\]: there is no file or folder '/no/such'"):
        look([str(tmp_path), "/no/such"])
    with pytest.raises(ConfigError, match=r"places\[0\]: 'nosuch://a' cannot be read here: .*nosuch"):
        look(["nosuch://a"])

    def no_access(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "find", no_access)
    with pytest.raises(DataError, match=r"places\[0\]: 'memory://bucket' cannot be looked at: Access Denied"):
        look(["memory://bucket"])


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def ls(files, path, **more):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    with pytest.raises(DataError, match=r"places\[0\]: .* cannot be looked at: .*Permission denied"):
        look([str(tmp_path)])


def test_only_what_looks_otherwise_is_read_again(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("[1]")
    first = with_digests(look([str(tmp_path)]), {})
    name = str(file)
    assert first[name].digest == hashlib.sha256(b"[1]").hexdigest()
    kept = {name: FileSeen(size=first[name].size, mark=first[name].mark, digest="kept")}
    assert with_digests(look([str(tmp_path)]), kept)[name].digest == "kept"
    os.utime(file, (1, 1))
    assert with_digests(look([str(tmp_path)]), kept)[name].digest == first[name].digest
    gone = look([str(tmp_path)])
    file.unlink()
    with pytest.raises(DataError, match=r"a\.json cannot be read"):
        with_digests(gone, {})


def test_a_place_of_no_name_is_refused_and_a_file_whose_name_cannot_be_written_down_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"^places\[1\]: it is empty"):
        look([str(tmp_path), ""])
    (tmp_path / os.fsdecode(b"terms-\xff.csv")).write_text("x")
    with pytest.raises(DataError, match="no UTF-8"):
        look([str(tmp_path)])
