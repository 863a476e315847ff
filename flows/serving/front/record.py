"""The record of a front: its address and its options. Its process is recorded in its folder, since that may change."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.serving.front import certificate
from flows.serving.front.options import FrontOptions


class FrontRecord(BaseModel):
    """One front. `port` is the one it listens on; `folder` holds all that belongs to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    folder: str
    port: int
    options: FrontOptions

    @property
    def path(self) -> Path:
        """Its folder."""
        return Path(self.folder)

    @property
    def url(self) -> str:
        """OpenAI base URL for clients; ends in /v1."""
        options = self.options
        host = options.public_host or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
        scheme = "https" if options.tls_certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def certificate(self) -> Path | None:
        """The PEM file, if it speaks TLS."""
        path = self.options.tls_certificate
        return certificate.place(path) if path else None

    @property
    def guarded(self) -> bool:
        """Whether a request needs a token."""
        return self.options.access == "token"
