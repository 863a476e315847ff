"""A real server that speaks the protocol of S3, with a bucket for each test, and stores in it of several machines."""

import contextlib
import logging
import os
import threading
import uuid

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from flows.store.bucket.address import Access, Address
from flows.store.bucket.client import Bucket
from flows.store.bucket.shared import CACHE, SharedStore

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def serving():
    """The address of a server. It looks at one request at a time: S3 looks at a condition and writes in one step."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    app = server._server.app
    one = threading.Lock()

    def one_at_a_time(environment, start):
        with one:
            return app(environment, start)

    server._server.app = one_at_a_time
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3():
    with serving() as url:
        yield url


@pytest.fixture
def address(s3, monkeypatch):
    """A bucket of the test's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    files = s3fs.S3FileSystem(client_kwargs={"endpoint_url": s3}, skip_instance_cache=True)
    files.call_s3("create_bucket", Bucket=name)
    return Address(name, "some/prefix", Access())


@pytest.fixture
def bucket(address):
    return Bucket(address)


@pytest.fixture
def machine(address, tmp_path, monkeypatch):
    """Makes the store as a machine of that name has it."""

    def of(name):
        monkeypatch.setenv(CACHE, str(tmp_path / name))
        told = []
        store = SharedStore(address, "run.store", told.append)
        store.told = told
        store.lease_s = 4.0
        return store

    return of
