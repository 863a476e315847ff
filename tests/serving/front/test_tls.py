import ssl

import httpx
import pytest

from flows.serving.front import certificate, folder, lifecycle, traffic
from tests.serving.front.certificates import make


@pytest.fixture
def pem(tmp_path):
    return make(tmp_path / "front.pem")


def client_for(pem):
    return httpx.Client(verify=ssl.create_default_context(cafile=str(pem)), trust_env=False, timeout=20)


def shown(front):
    return ssl.get_server_certificate(("127.0.0.1", front.port)).strip()


def test_clients_are_given_https_and_plain_http_is_refused(start, servers, pem):
    front = start(tls_certificate=str(pem), public_host="localhost", access="token")
    traffic.route(front, {servers[0].address: 1})
    assert front.url == f"https://localhost:{front.port}/v1"
    with client_for(pem) as client:
        assert client.get(f"{front.url}/models").status_code == 401
    with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False) as plain:
        plain.get(f"http://127.0.0.1:{front.port}/v1/models").raise_for_status()


def test_a_renewed_certificate_is_shown_without_a_restart(start, servers, pem, caplog):
    front = start(tls_certificate=str(pem))
    running = folder.running(front.path)
    traffic.route(front, {servers[0].address: 1})
    make(pem, "renewed")
    assert not lifecycle.revive(front)
    assert shown(front) in pem.read_text()
    assert folder.running(front.path) == running
    with client_for(pem) as client:
        assert client.get(f"{front.url}/models").text == str(servers[0].server_port)
    good = shown(front)
    pem.write_text("half a certificate")
    assert not lifecycle.revive(front)
    assert shown(front) == good
    assert "keeps its former certificate" in caplog.text


def test_the_key_may_lie_beside_the_certificate(start, tmp_path, pem):
    text = pem.read_text()
    cut = text.index("-----BEGIN PRIVATE KEY-----")
    alone = tmp_path / "alone.pem"
    alone.write_text(text[:cut])
    assert "is no PEM file with a certificate and its private key" in certificate.unusable(alone)
    (tmp_path / "alone.pem.key").write_text(text[cut:])
    assert certificate.unusable(alone) == ""
    front = start(tls_certificate=str(alone))
    assert shown(front) in text
    make(pem, "renewed")
    renewed = pem.read_text()
    cut = renewed.index("-----BEGIN PRIVATE KEY-----")
    alone.write_text(renewed[:cut])
    (tmp_path / "alone.pem.key").write_text(renewed[cut:])
    lifecycle.revive(front)
    assert shown(front) in renewed
