"""Where a store in a bucket is, and by what right it is reached."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field

from pydantic import SecretStr

from flows.errors import ConfigError

SCHEME = "s3://"


@dataclass(frozen=True)
class Access:
    """How the server of the bucket is reached. What is empty botocore takes from the environment (AWS_*)."""

    endpoint_url: str = ""
    key_id: str = ""
    secret: SecretStr = field(default=SecretStr(""), repr=False)
    region: str = ""


@dataclass(frozen=True)
class Address:
    """A bucket, and the prefix below which the store lies (without slashes at its ends; may be empty)."""

    bucket: str
    prefix: str
    access: Access = Access()

    @property
    def url(self) -> str:
        """As a person writes it."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def folder(self) -> str:
        """A name for the local folder, another one for each server, bucket and prefix."""
        server = self.access.endpoint_url or next(
            (os.environ[name] for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), ""
        )
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.bucket}-{self.prefix}".lower()).strip("-")
        return f"{words[:60]}-{hashlib.sha256(f'{server} {self.url}'.encode()).hexdigest()[:8]}"


def address(given: str, field: str, access: Access | None = None) -> Address:
    """The address of `s3://bucket/prefix`.

    Raises:
        ConfigError: it is none; names the field.
    """
    bucket, _, prefix = given.removeprefix(SCHEME).partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or not given.startswith(SCHEME):
        raise ConfigError(
            f"{field}: '{given[:200]}' names no bucket. Write s3://bucket/prefix; a bucket's name has 3 to 63 "
            "lower-case letters, digits, dots and dashes."
        )
    if any(part in ("", ".", "..") for part in prefix.strip("/").split("/")) and prefix.strip("/"):
        raise ConfigError(f"{field}: '{given[:200]}' has an empty part, '.' or '..' in its prefix.")
    return Address(bucket, prefix.strip("/"), access or Access())
