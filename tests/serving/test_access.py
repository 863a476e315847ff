"""Requests to servers that drip, that flood, and that cannot be asked at all."""

import contextlib
import itertools
import socket
import ssl
import threading
import time

import httpx
import pytest

from flows.errors import ServingError
from flows.serving import access, probe
from flows.serving.runtimes import process
from tests.serving.front.certificates import make
from tests.serving.test_probe import endpoint_at

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# What comes at once, and what comes again and again after it, 0.05 s apart, and ends the answer well in the end.
DRIPS = {
    "headers": (OK, b"X-More: 1\r\n", b"Content-Length: 0\r\n\r\n"),
    "1xx": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", OK + b"Content-Length: 0\r\n\r\n"),
    "chunks": (CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n"),
    "body": (OK + b"Content-Length: 60\r\n\r\n", b"x", b""),
}


@contextlib.contextmanager
def answering(pieces, pause_s=0.0, tls=None):
    """The URL of a server that gives every request these pieces of an answer, with pauses between them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with contextlib.suppress(OSError), contextlib.closing(connection):
                    talk(tls.wrap_socket(connection, server_side=True) if tls else connection)

    def talk(connection):
        connection.recv(65536)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("kind", DRIPS)
def test_a_server_that_drips_has_the_time_that_any_has(kind):
    first, drop, last = DRIPS[kind]
    with answering([first, *[drop] * 60, last], 0.05) as url:
        with pytest.raises(httpx.TimeoutException, match=r"not all of the answer within 0.3 s"):
            access.request(endpoint_at(url), "GET", url, 0.3)
        with pytest.raises(probe.ProbeError, match=r"No answer within 0.3 s from"):
            probe.ready(endpoint_at(f"{url}/v1").model_copy(update={"ready_timeout_s": 0.3}))


def test_a_flood_is_broken_off():
    flood = itertools.chain([CHUNKED], itertools.repeat(b"100000\r\n" + b"x" * 0x100000 + b"\r\n", 1000))
    with (
        answering(flood) as url,
        pytest.raises(httpx.RemoteProtocolError, match="its answer is longer than 4 MiB"),
    ):
        access.request(endpoint_at(url), "GET", url, 60)


@pytest.mark.parametrize("url", ["http://[::1", f"http://{'a' * 64}.example/v1", "http://a..b/v1"])
def test_an_address_that_is_none_is_told_in_words(url):
    with pytest.raises(ServingError, match="Nothing can be asked at"):
        access.request(endpoint_at("http://127.0.0.1:9/v1"), "GET", url, 5)


def test_behind_tls_too(tmp_path, monkeypatch):
    pem = make(tmp_path / "front.pem")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=pem)
    server.load_cert_chain(pem)
    monkeypatch.setattr(process, "tls", lambda record: client)
    first, drop, last = DRIPS["body"]
    with answering([first, *[drop] * 60, last], 0.05, server) as url:
        assert len(access.request(endpoint_at(url), "GET", url, 30).content) == 60
        with pytest.raises(httpx.TimeoutException, match=r"not all of the answer within 0.3 s"):
            access.request(endpoint_at(url), "GET", url, 0.3)
