import ssl

import httpx
import pytest

from flows.serving.front import certificate, folder, lifecycle, traffic
from flows.serving.front.options import FrontOptions, problems
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


def test_a_link_is_followed_by_haproxy_and_has_its_key_beside_it(start, tmp_path):
    """As certbot lays them out: links in one folder, one certificate and key a renewal in another."""
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir()
    archive.mkdir()

    def renew(number):
        text = make(archive / f"both{number}.pem", f"front{number}").read_text()
        cut = text.index("-----BEGIN PRIVATE KEY-----")
        (archive / f"cert{number}.pem").write_text(text[:cut])
        (archive / f"key{number}.pem").write_text(text[cut:])
        for link, file in (("front.pem", "cert"), ("front.pem.key", "key")):
            (live / link).unlink(missing_ok=True)
            (live / link).symlink_to(archive / f"{file}{number}.pem")
        return text

    first = renew(1)
    options = {"enabled": True, "tls_certificate": str(live / "front.pem")}
    assert problems(FrontOptions.model_validate(options), "process", 0) == []
    front = start(tls_certificate=options["tls_certificate"])
    assert shown(front) in first
    second = renew(2)
    lifecycle.revive(front)
    assert shown(front) in second


def test_a_path_from_the_present_folder_is_refused(pem, monkeypatch):
    monkeypatch.chdir(pem.parent)
    (problem,) = problems(FrontOptions(enabled=True, tls_certificate=pem.name), "process", 0)
    assert problem.startswith("serve.front.tls_certificate: front.pem must begin with / or ~: ")


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
