"""What HAProxy is told: where it is installed, and the files it reads when it starts.

All that changes while it serves (servers, their shares, tokens, whether tokens are asked for) goes through its runtime
API, see `runtime_api`; the same is written to the files, so that a restart comes up as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import ServingError
from flows.store.files import replaced

if TYPE_CHECKING:
    from flows.serving.front.record import FrontRecord

OLDEST = (2, 6)
BACKEND = "model"
PLACES = "/usr/sbin:/usr/local/sbin"  # an ordinary user's PATH leaves them out
CONFIG = "haproxy.cfg"
SERVERS = "servers.cfg"
ACCESS = "access.map"
TOKENS = "tokens.map"
SOCKET = "admin.sock"

# Why so:
# - http-server-close: a connection of its own for every request, as reusing one that the model server is just closing
#   would lose the request, and one kept to a server that was replaced would go on asking it.
# - abortonclose: a client that goes away ends its generation.
# - http-no-delay: a token is sent when it comes, not when a packet is full.
# - No request is logged: a path may hold what was not meant for a log.
TEMPLATE = """\
global
    stats socket unix@{socket} mode 600 level admin expose-fd listeners
    log stdout format raw local0 notice
    nbthread 2
    maxconn 4000
    no strict-limits
    noreuseport
    hard-stop-after {drain_s}s
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    timeout connect 5s
    timeout client {silence_s}s
    timeout server {silence_s}s
    timeout http-request 30s
    timeout http-keep-alive 300s
    option http-server-close
    option abortonclose
    option http-no-delay
    option redispatch
    retries 3
{errorfiles}

frontend public
    bind {bind}
    http-request set-var(txn.access) str(mode),map_str({access},token)
    http-request set-var(txn.scheme) req.fhdr(authorization),word(1,' ')
    http-request set-var(txn.expires) req.fhdr(authorization),word(2,' '),sha2(256),hex,map_str_int({tokens},0)
    http-request set-var(txn.now) date()
    acl guarded var(txn.access) -m str token
    acl long req.fhdr(authorization),length -m int gt 1024
    acl one_header req.fhdr_cnt(authorization) eq 1
    acl scheme var(txn.scheme) -m str -i bearer backendai
    acl more_words req.fhdr(authorization),word(3,' '),length -m int gt 0
    acl known var(txn.expires) -m int gt 0
    acl in_time var(txn.expires),sub(txn.now) -m int gt 0
    http-request return {long} if guarded long
    http-request return {none} if guarded !one_header
    http-request return {none} if guarded !scheme
    http-request return {none} if guarded more_words
    http-request return {wrong} if guarded !known
    http-request return {expired} if guarded !in_time
    http-request del-header authorization if guarded
    default_backend {backend}
"""
ERRORS = {
    # Before 3.2 HAProxy words this one itself (https://github.com/haproxy/haproxy/issues/3032).
    400: ("Bad Request", "This is no HTTP request, or its head (with the token) is longer than 15 KiB."),
    408: ("Request Time-out", "The request did not come whole in time."),
    500: ("Internal Server Error", "The front of this endpoint made a mistake."),
    502: ("Bad Gateway", "The model server broke off, or answered no HTTP. Try again."),
    503: ("Service Unavailable", "No model serves here at the moment. Try again later."),
    504: ("Gateway Time-out", "The model server gave no answer in time."),
}


def program() -> str:
    """Path of HAProxy.

    Raises:
        ServingError: there is none, or an old one.
    """
    found = shutil.which("haproxy") or shutil.which("haproxy", path=PLACES)
    if not found:
        raise ServingError(
            "HAProxy is not installed. Install it (Debian, Ubuntu: apt-get install haproxy; or `make front`, as root)."
        )
    said = subprocess.run([found, "-v"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"version (\d+)\.(\d+)", said)
    if not version or (int(version[1]), int(version[2])) < OLDEST:
        words = said.splitlines()[0] if said else "nothing"
        raise ServingError(f"{found} calls itself '{words}'; it must be HAProxy {OLDEST[0]}.{OLDEST[1]} or newer.")
    return found


def command(folder: Path, replaced: int = 0) -> list[str]:
    """How it is started; it takes over the port of the process `replaced`, if one is, and has it finish."""
    words = [program(), "-db", "-C", str(folder), "-f", CONFIG, "-f", SERVERS]
    return [*words, "-x", SOCKET, "-sf", str(replaced)] if replaced else words


def config_text(record: FrontRecord) -> str:
    """Its configuration, all but the servers: what takes a new process when it changes."""
    options = record.options
    host = f"[{options.host}]" if ":" in options.host else options.host
    tls = f" ssl crt {record.certificate} alpn http/1.1" if record.certificate else ""
    return TEMPLATE.format(
        socket=SOCKET,
        drain_s=options.drain_s,
        silence_s=options.silence_s,
        errorfiles="\n".join(f"    errorfile {status} errors/{status}.http" for status in ERRORS),
        bind=f"{host}:{record.port}{tls}",
        access=ACCESS,
        tokens=TOKENS,
        backend=BACKEND,
        none=_unauthorized("Give a token of this endpoint in one header, Authorization: Bearer TOKEN."),
        long=_refusal(431, "This header is longer than 1024 characters, and so is no token.", "invalid_api_key"),
        wrong=_unauthorized("This is no token of this endpoint, or it was revoked."),
        expired=_unauthorized("This token has expired.", "token_expired"),
    )


def servers_text(shares: dict[str, int]) -> str:
    """The servers it begins with."""
    lines = [f"    server {address} {address} weight {share}" for address, share in shares.items()]
    return "\n".join([f"backend {BACKEND}", "    balance roundrobin", *lines, ""])


def access_text(record: FrontRecord) -> str:
    """Whether tokens are asked for, as a map of HAProxy."""
    return f"mode {record.options.access}\n"


def write_errors(folder: Path) -> None:
    """The answers that HAProxy gives itself, as the OpenAI API words its errors."""
    (folder / "errors").mkdir(exist_ok=True)
    for status, (phrase, words) in ERRORS.items():
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = _error(words, kind, None)
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        text = f"{head}Cache-Control: no-cache\r\nConnection: close\r\n\r\n{body}"
        (folder / "errors" / f"{status}.http").write_bytes(text.encode())


def _unauthorized(words: str, code: str = "invalid_api_key") -> str:
    return f"{_refusal(401, words, code)} hdr WWW-Authenticate Bearer"


def _refusal(status: int, words: str, code: str) -> str:
    body = _error(words, "invalid_request_error", code)
    return f"status {status} content-type application/json string '{body}'"


def _error(words: str, kind: str, code: str | None) -> str:
    return json.dumps({"error": {"message": words, "type": kind, "param": None, "code": code}})


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    with replaced(path) as written, open(written, "x", encoding="utf-8", opener=_private) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
