"""Tokens and the blocks that hold them; the real ones are met in end_to_end/test_tokens.py."""

import pytest
from pydantic import SecretStr

from flows.errors import ConfigError, ServingError
from flows.serving import records
from flows.serving.front import tokens
from flows.serving.front.options import FrontOptions
from flows.serving.front.record import FrontRecord
from flows.stages import endpoint_tokens
from flows.store.layout import Store
from tests.stages.test_endpoint_target import endpoint


class Block:
    """The block type, in memory."""

    kept: dict[str, "Block"] = {}  # noqa: RUF012
    refuses = False

    def __init__(self, base_url, model, api_key):
        self.base_url, self.model, self.api_key = base_url, model, SecretStr(api_key)

    def save(self, name, overwrite):
        if self.refuses:
            raise RuntimeError("no Prefect")
        self.kept[name] = self

    @classmethod
    def load(cls, name):
        if name not in cls.kept:
            raise ValueError(name)
        return cls.kept[name]

    @classmethod
    def delete(cls, name):
        del cls.kept[name]


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(endpoint_tokens, "OpenAIEndpoint", Block)
    monkeypatch.setattr(Block, "kept", {})
    return Block.kept


@pytest.fixture
def store(tmp_path, blocks):
    store = Store(str(tmp_path))
    folder = store.endpoints.resolve() / "demo" / "front"
    options = FrontOptions(enabled=True, access="token")
    record = FrontRecord(name="demo", folder=str(folder), port=18443, options=options)
    records.save(store.endpoints, endpoint(front=record))
    return store


def test_a_block_holds_address_model_and_token(store, blocks):
    assert endpoint_tokens.issue(store, "demo", "batch", 7) == "demo-batch"
    block = blocks["demo-batch"]
    assert (block.base_url, block.model) == ("http://127.0.0.1:18443/v1", "/models/a")
    [token] = tokens.load(store.endpoints, "demo")
    assert (token.block, token.sha256) == ("demo-batch", tokens.sha256(block.api_key.get_secret_value()))
    assert endpoint_tokens.key_for(store, "demo") == block.api_key.get_secret_value()


def test_a_revoked_token_takes_its_block_along(store, blocks):
    endpoint_tokens.issue(store, "demo", "batch", 7, "mine")
    endpoint_tokens.revoke(store, "demo", "batch")
    assert (blocks, endpoint_tokens.key_for(store, "demo")) == ({}, "")


def test_a_block_that_holds_something_else_by_now_is_left_alone(store, blocks):
    endpoint_tokens.issue(store, "demo", "batch", 7, "mine")
    blocks["mine"] = Block("http://elsewhere/v1", "m", "theirs")
    assert endpoint_tokens.key_for(store, "demo") == ""
    endpoint_tokens.revoke(store, "demo", "batch")
    assert list(blocks) == ["mine"]


def test_a_block_of_another_address_is_not_written_over(store, blocks):
    blocks["theirs"] = Block("http://elsewhere/v1", "m", "theirs")
    with pytest.raises(
        ConfigError, match="block: the OpenAI Endpoint block 'theirs' is of http://elsewhere/v1, not of"
    ):
        endpoint_tokens.issue(store, "demo", "batch", 7, "theirs")
    assert tokens.load(store.endpoints, "demo") == []


def test_a_token_that_could_not_be_kept_opens_nothing(store, blocks, monkeypatch):
    monkeypatch.setattr(Block, "refuses", True)
    with pytest.raises(RuntimeError, match="no Prefect"):
        endpoint_tokens.issue(store, "demo", "batch", 7)
    assert tokens.valid(store.endpoints, "demo") == []


def test_an_endpoint_without_a_front_asks_for_none(store):
    records.save(store.endpoints, endpoint())
    with pytest.raises(ServingError, match="demo has no front, so nothing asks for a token"):
        endpoint_tokens.issue(store, "demo", "batch", 7)
    with pytest.raises(ServingError, match="There is no endpoint 'nobody'"):
        endpoint_tokens.issue(store, "nobody", "batch", 7)
