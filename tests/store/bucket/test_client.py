import pickle

import pytest
from pydantic import SecretStr

from flows.errors import ConfigError
from flows.store.bucket.address import Access, Address
from flows.store.bucket.address import address as parse
from flows.store.bucket.client import Bucket, BucketError


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("s3://", "names no bucket"),
        ("s3://Upper/x", "names no bucket"),
        ("s3://ab", "names no bucket"),
        ("s3:/bucket/x", "names no bucket"),
        ("s3://bucket/a//b", "has an empty part"),
        ("s3://bucket/../other", "in its prefix"),
    ],
)
def test_what_is_no_address_is_refused_naming_the_field(given, words):
    with pytest.raises(ConfigError, match=f"^run.store: .*{words}"):
        parse(given, "run.store")


def test_an_address_is_read_and_each_has_a_folder_of_its_own(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    found = parse("s3://models/trade/", "run.store")
    assert (found.bucket, found.prefix, found.url) == ("models", "trade", "s3://models/trade")
    others = [
        parse("s3://models", "x"),
        parse("s3://models/trade", "x", Access("http://other")),
        parse("s3://a-b/c", "x"),
    ]
    assert len({one.folder for one in [found, *others]}) == 4


def test_a_secret_is_shown_nowhere():
    address = Address("bucket", "", Access("http://127.0.0.1:9", "id", SecretStr("the-secret")))
    bucket = Bucket(address)
    with pytest.raises(BucketError) as error:
        bucket.read("x")
    assert "the-secret" not in f"{address!r} {address} {bucket!r} {error.value!r}"


def test_an_object_is_written_only_on_its_condition(bucket):
    first = bucket.write_if("a/b", b"one", None)
    assert bucket.write_if("a/b", b"two", None) is None
    assert bucket.write_if("a/b", b"two", '"another"') is None
    assert bucket.write_if("nothing", b"two", first) is None
    second = bucket.write_if("a/b", b"two", first)
    assert bucket.write_if("a/b", b"three", first) is None
    found = bucket.read("a/b")
    assert (found.content, found.etag) == (b"two", second)
    assert 0 <= found.age_s < 60


def test_a_request_that_meets_itself_has_won(bucket):
    etag = bucket.write_if("a", b"ours", None)
    assert bucket.write_if("a", b"ours", None) == etag, "as when the first answer was lost and botocore asks again"


def test_listing_many_reading_many_and_removing_many(bucket):
    names = [f"k/{number:04}/done.json" for number in range(1100)]
    for name in names[:30]:
        bucket.write(name, name.encode())
    bucket.write("other/x", b"")
    assert sorted(bucket.entries("k/")) == names[:30]
    assert sorted(bucket.entries("k/000")) == names[:10], "the beginning of a name will do"
    assert bucket.entries("none/") == {}
    assert bucket.read_all(names[:40]) == {name: name.encode() for name in names[:30]}
    assert bucket.read_all(names[:1]) == {names[0]: names[0].encode()}
    assert bucket.read_all([]) == {}
    assert bucket.read_all(["no"]) == {}
    bucket.delete(names)
    assert list(bucket.entries("")) == ["other/x"]


def test_files_of_every_size_come_back_as_they_were(bucket, tmp_path):
    for size in (0, 1, 20 * 2**20):
        file = tmp_path / str(size)
        file.write_bytes(b"x" * size)
        bucket.upload(file, f"files/{size}")
        bucket.download(f"files/{size}", tmp_path / "back" / str(size))
        assert (tmp_path / "back" / str(size)).read_bytes() == file.read_bytes()
    with pytest.raises(FileNotFoundError):
        bucket.download("files/none", tmp_path / "none")


def test_no_bucket_is_said_in_words(address):
    missing = Bucket(Address("there-is-none", "", address.access))
    for ask in (lambda: missing.read("x"), lambda: missing.write("x", b""), lambda: missing.entries("")):
        with pytest.raises(BucketError, match="There is no bucket 'there-is-none'"):
            ask()


def test_a_client_that_was_copied_connects_anew(bucket):
    bucket.write("a", b"1")
    assert pickle.loads(pickle.dumps(bucket)).read("a").content == b"1"


def test_a_folder_whose_first_object_is_written_while_it_is_listed_has_none_yet(bucket, monkeypatch):
    bucket.write("work/a/manifest.json", b"{}")
    files = bucket._files
    listed = files._lsdir

    async def too_early(path, *rest, **more):
        monkeypatch.setattr(files, "_lsdir", listed)
        return []

    monkeypatch.setattr(files, "_lsdir", too_early)
    assert bucket.entries("work/a/") == {}
    assert set(bucket.entries("work/a/")) == {"work/a/manifest.json"}
