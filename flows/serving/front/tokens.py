"""The tokens of an endpoint: several, each with a name, an end and a way to take it back.

A token is 256 random bits, so its SHA-256 tells nothing of it and needs no salt: only that is stored, in a file that
nobody else may read (0600). HAProxy compares the hashes and looks at the clock itself; what changes here reaches it
through its runtime API, in one step for all tokens, and holds from the next request on.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from flows.errors import ServingError
from flows.serving import records
from flows.serving.front import folder as files
from flows.serving.front import haproxy, runtime_api
from flows.serving.names import NAME
from flows.serving.runtimes import process

PREFIX = "pft-"  # so that a scanner for leaked secrets can tell one
BITS = 256
NEVER = 253402300799  # the last second of the year 9999
MOST_DAYS = 36500


class Token(BaseModel):
    """What is known of a token. Times are ISO 8601, UTC; `expires` is empty if it does not, `revoked` if it was not.

    `block` names the Prefect block that holds it, if one does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    created: str
    expires: str = ""
    revoked: str = ""
    block: str = ""

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens the endpoint, or why not."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and datetime.fromisoformat(self.expires) <= now else "valid"


def issue(endpoints_dir: Path, endpoint: str, name: str, days: int, block: str = "") -> str:
    """A new token of an endpoint; nobody can read it again, so hand it on at once.

    Args:
        endpoints_dir: holds the records.
        endpoint: name of the endpoint; it need not ask for tokens yet.
        name: of the token, as of who gets it; free again when that one has expired or was revoked.
        days: how long it is valid; 0: until it is revoked.
        block: Prefect block into which it is about to be written, for the record.

    Raises:
        ServingError: no such endpoint, a name that is none or is taken, or the front did not take it over.
    """
    if not re.fullmatch(NAME, name):
        raise ServingError(f"The token's name {name[:80]!r} may hold a to z, 0 to 9 and dashes only, as nightly-batch.")
    if not 0 <= days <= MOST_DAYS:
        raise ServingError(f"days: {days} is not between 0 (no end) and {MOST_DAYS}.")
    now = datetime.now(UTC)
    with files.held(_folder(endpoints_dir, endpoint)):
        kept = load(endpoints_dir, endpoint)
        if any(one.name == name and one.state(now) == "valid" for one in kept):
            raise ServingError(f"{endpoint} has a valid token '{name}'. Revoke it first, or choose another name.")
        plain = PREFIX + secrets.token_urlsafe(BITS // 8)
        expires = (now + timedelta(days=days)).isoformat(timespec="seconds") if days else ""
        new = Token(
            name=name,
            sha256=sha256(plain),
            created=now.isoformat(timespec="seconds"),
            expires=expires,
            block=block,
        )
        try:
            _save(endpoints_dir, endpoint, [*(one for one in kept if one.name != name), new])
        except BaseException:  # nobody will ever hold it, so it must not count as given
            _write(endpoints_dir, endpoint, kept)
            raise
    return plain


def revoke(endpoints_dir: Path, endpoint: str, name: str) -> Token:
    """Take a token back: the next request with it is refused, running ones finish. Twice is no error.

    Raises:
        ServingError: no such endpoint or token, or the front did not take it over (it is still valid there then).
    """
    with files.held(_folder(endpoints_dir, endpoint)):
        kept = load(endpoints_dir, endpoint)
        found = next((one for one in kept if one.name == name), None)
        if found is None:
            have = ", ".join(one.name for one in kept) or "none"
            raise ServingError(f"{endpoint} has no token '{name}'. It has: {have}.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        revoked = found if found.revoked else found.model_copy(update={"revoked": now})
        _save(endpoints_dir, endpoint, [revoked if one is found else one for one in kept])
    return revoked


def load(endpoints_dir: Path, endpoint: str) -> list[Token]:
    """The tokens of an endpoint, the oldest first; those that have expired or were revoked too.

    Raises:
        ServingError: the file is damaged.
    """
    path = files.place(endpoints_dir, endpoint) / "tokens.json"
    try:
        return _LIST.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise ServingError(
            f"{path} holds no tokens. Delete it and issue new ones; until then none is valid after a restart."
        ) from error


def valid(endpoints_dir: Path, endpoint: str) -> list[Token]:
    """Those that open the endpoint now."""
    now = datetime.now(UTC)
    return [one for one in load(endpoints_dir, endpoint) if one.state(now) == "valid"]


def sha256(plain: str) -> str:
    """The hash of a token, as HAProxy writes it."""
    return hashlib.sha256(plain.encode()).hexdigest().upper()


_LIST = TypeAdapter(list[Token])


def _folder(endpoints_dir: Path, endpoint: str) -> Path:
    if records.load(endpoints_dir, endpoint) is None:
        raise records.unknown(endpoints_dir, endpoint)
    return files.place(endpoints_dir, endpoint)


def _save(endpoints_dir: Path, endpoint: str, tokens: list[Token]) -> None:
    """Write the tokens down, and have the front that runs go by them."""
    folder, until = files.place(endpoints_dir, endpoint), _write(endpoints_dir, endpoint, tokens)
    running = files.running(folder)
    if running and process.alive(running):
        _push(folder, until)


def _write(endpoints_dir: Path, endpoint: str, tokens: list[Token]) -> dict[str, int]:
    """Write the tokens down; hash and end (seconds since 1970) of those that are valid."""
    folder, now = files.place(endpoints_dir, endpoint), datetime.now(UTC)
    until = {one.sha256: _until(one) for one in tokens if one.state(now) == "valid"}
    text = json.dumps([one.model_dump() for one in tokens], indent=1)
    haproxy.write_private(folder / "tokens.json", text)
    lines = "".join(f"{digest} {second}\n" for digest, second in until.items())
    haproxy.write_private(folder / haproxy.TOKENS, lines)
    return until


def _push(folder: Path, until: dict[str, int]) -> None:
    name = haproxy.TOKENS
    version = runtime_api.ask(folder, f"prepare map {name}").rpartition(": ")[2]
    for digest, second in until.items():
        runtime_api.order(folder, f"add map @{version} {name} {digest} {second}")
    runtime_api.order(folder, f"commit map @{version} {name}")


def _until(token: Token) -> int:
    return int(datetime.fromisoformat(token.expires).timestamp()) if token.expires else NEVER
