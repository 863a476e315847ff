"""The TLS certificate of a front: whether it can be used, and a renewed one without a restart."""

from __future__ import annotations

import hashlib
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import ServingError
from flows.serving.front import runtime_api
from flows.store.files import write_atomically

if TYPE_CHECKING:
    from flows.serving.front.record import FrontRecord

LOADED = "certificate.sha256"

logger = logging.getLogger(__name__)


def place(path: str) -> Path:
    """Where HAProxy reads the PEM file, and beside it the key: a link is left one, as its key lies beside the link."""
    return Path(path).expanduser().absolute()


def refused(path: str) -> str:
    """Why a path that a person gave cannot be taken; empty if it can."""
    try:
        absolute = Path(path).expanduser().is_absolute()
    except RuntimeError as error:
        return f"{path}: {str(error).rstrip('.')}."
    if not absolute:
        return f"{path} must begin with / or ~: whoever starts the front again may do so in another folder."
    return unusable(place(path))


def unusable(certificate: Path) -> str:
    """Why HAProxy could not take it; empty if it can."""
    key = _key(certificate)
    try:
        both = certificate, key if key.exists() else None
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*both, password="")
    except FileNotFoundError:
        return f"there is no file {certificate}."
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, PermissionError) else str(error)
        return (
            f"{certificate} is no PEM file with a certificate and its private key without a password ({reason}). "
            "Put the certificate, those between it and its root, and the key one behind another into it."
        )
    return ""


def remember(record: FrontRecord) -> None:
    """Write down which one the front that was just started has read."""
    if record.certificate:
        write_atomically(record.path / LOADED, _digest(record.certificate))


def renew(record: FrontRecord) -> None:
    """Hand a front that runs its certificate if the file has changed since; a bad one is logged, the old one stays."""
    path, loaded = record.certificate, record.path / LOADED
    if path is None or (loaded.exists() and loaded.read_text() == _digest(path)):
        return
    if wrong := unusable(path):
        logger.error("The front of %s keeps its former certificate: %s", record.name, wrong)
        return
    try:
        # An empty line ends what is handed over, so there must be none before.
        lines = [line for line in _content(path).splitlines() if line.strip()]
        runtime_api.ask(record.path, "\n".join([f"set ssl cert {path} <<", *lines, ""]))
        said = runtime_api.ask(record.path, f"commit ssl cert {path}")
    except ServingError as error:
        said = str(error)
    if not said.endswith("Success!"):
        logger.error("The front of %s keeps its former certificate: %s", record.name, said)
        return
    remember(record)
    logger.info("The front of %s shows its renewed certificate.", record.name)


def _key(certificate: Path) -> Path:
    return certificate.with_name(f"{certificate.name}.key")


def _content(certificate: Path) -> str:
    key = _key(certificate)
    return certificate.read_text() + (f"\n{key.read_text()}" if key.exists() else "")


def _digest(certificate: Path) -> str:
    try:
        return hashlib.sha256(_content(certificate).encode()).hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        return f"unreadable: {error}"
