"""The API server as the tests' own parts ask it: plain requests, no client library."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx

MERGE = "application/merge-patch+json"


class Api:
    """Requests of one user. What is not there is None; any other refusal raises."""

    def __init__(self, url: str, token: str, ca: Path) -> None:
        self.url, self.headers, self.ca = url, {"Authorization": f"Bearer {token}"}, ca
        self._client: httpx.Client | None = None

    def get(self, path: str) -> Any:
        """What is there."""
        return self._done(self._send("GET", path))

    def says_ok(self, path: str) -> bool:
        """Whether a path answers 200; false while nobody answers."""
        try:
            return self._send("GET", path).status_code == 200
        except httpx.HTTPError:
            return False

    def items(self, path: str) -> list[dict[str, Any]]:
        """What a list holds."""
        found: list[dict[str, Any]] = self.get(path)["items"]
        return found

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._done(self._send("POST", path, json=body))

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        return self._done(self._send("PATCH", path, json=body, headers={"Content-Type": MERGE}))

    def delete(self, path: str, **options: Any) -> Any:
        return self._done(self._send("DELETE", path, json={"kind": "DeleteOptions", "apiVersion": "v1"} | options))

    def _send(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        if self._client is None:  # the certificate is made by the server as it starts
            self._client = httpx.Client(
                verify=ssl.create_default_context(cafile=str(self.ca)), trust_env=False, timeout=30
            )
        return self._client.request(method, self.url + path, headers=self.headers | (headers or {}), **more)

    def _done(self, answer: httpx.Response) -> Any:
        if answer.status_code == 404:
            return None
        if answer.is_error:
            raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
        return answer.json()
