import pytest
from pydantic import SecretStr

from blocks.s3_store import S3Store
from flows.errors import ConfigError
from flows.stages import opening
from flows.stages.opening import open_store
from flows.store.bucket.shared import SharedStore


@pytest.fixture
def team(monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    block = S3Store(
        location="models/trade", endpoint_url="http://127.0.0.1:9", key_id="id", secret=SecretStr("the-secret")
    )

    def load(name):
        if name != "team":
            raise ValueError(f"Unable to find block document named {name}")
        return block

    monkeypatch.setattr(opening.S3Store, "load", load)


def test_a_block_gives_bucket_and_keys(team):
    store = open_store("s3-store/team", "run.store")
    assert isinstance(store, SharedStore)
    assert store.bucket.address.url == "s3://models/trade"
    access = store.bucket.address.access
    assert (access.endpoint_url, access.key_id) == ("http://127.0.0.1:9", "id")
    assert access.secret.get_secret_value() == "the-secret"
    assert "the-secret" not in repr(store.bucket.address)


def test_the_environment_may_name_it_too(team, monkeypatch):
    monkeypatch.setenv("FINETUNE_STORE", "s3-store/team")
    assert open_store("").field == "FINETUNE_STORE"


def test_a_block_that_is_not_there_is_named_with_its_field(team):
    with pytest.raises(ConfigError, match="run.store: there is no S3 Store block 'nobody'"):
        open_store("s3-store/nobody", "run.store")


def test_a_folder_is_a_folder(tmp_path):
    assert open_store(str(tmp_path)).root == tmp_path
