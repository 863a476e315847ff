"""The requests that a store makes of its bucket: whole objects, on condition, and files. Names are below the prefix."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from flows.errors import TransientError
from flows.store.bucket.address import Address

CONNECT_S = 10
READ_S = 60
DELETED_AT_ONCE = 1000


class BucketError(TransientError):
    """The bucket cannot be reached or refuses us; a retry may help."""


@dataclass(frozen=True)
class Found:
    """An object: its bytes, its ETag, and how long ago it was written, in s by the server's clock (whole seconds)."""

    content: bytes
    etag: str
    age_s: float


@dataclass(frozen=True)
class Entry:
    """An object in a listing: size in bytes, ETag, and when it was written."""

    size: int
    etag: str
    written: datetime.datetime


class Bucket:
    """A client of one store's bucket. Threads may share it; a copy in another process connects anew."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def __reduce__(self) -> tuple[type[Bucket], tuple[Address]]:
        return Bucket, (self.address,)

    @cached_property
    def _files(self) -> Any:
        import s3fs

        access = self.address.access
        client = {"endpoint_url": access.endpoint_url, "region_name": access.region}
        return s3fs.S3FileSystem(
            key=access.key_id or None,
            secret=access.secret.get_secret_value() or None,
            client_kwargs={name: value for name, value in client.items() if value},
            config_kwargs={"connect_timeout": CONNECT_S, "read_timeout": READ_S},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def read(self, name: str) -> Found | None:
        """The object, None if there is none."""
        with self._in_words(f"read {name}"):
            try:
                answer = self._files.call_s3("get_object", **self._at(name))
                content = self._body(answer["Body"])
            except FileNotFoundError as error:
                _bucket_is_there(error)
                return None
        return Found(content, answer["ETag"], _age(answer))

    def has(self, name: str) -> bool:
        """Whether the object is there."""
        with self._in_words(f"look for {name}"):
            try:
                self._files.call_s3("head_object", **self._at(name))
            except FileNotFoundError:
                return False
        return True

    def write(self, name: str, content: bytes) -> str:
        """Write an object, whatever is there; its ETag."""
        with self._in_words(f"write {name}"):
            return str(self._files.call_s3("put_object", **self._at(name), Body=content)["ETag"])

    def write_if(self, name: str, content: bytes, etag: str | None) -> str | None:
        """Write an object if it is still the one with this ETag; None: if there is none yet.

        Returns:
            The new ETag; None if somebody else was there first, and nothing was written.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with self._in_words(f"write {name}"):
            try:
                return str(self._files.call_s3("put_object", **self._at(name), Body=content, **condition)["ETag"])
            except OSError as error:
                if not _lost(error):
                    raise
        # A request of ours whose answer was lost is sent again by botocore, and then meets itself.
        found = self.read(name)
        return found.etag if found is not None and found.content == content else None

    def upload(self, file: Path, name: str) -> None:
        """Write a file of any size."""
        with self._in_words(f"write {name}"):
            self._files.put_file(str(file), self._path(name))

    def download(self, name: str, file: Path) -> None:
        """Read an object of any size into a file.

        Raises:
            FileNotFoundError: there is no such object.
            BucketError: the bucket does not answer.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._in_words(f"read {name}"):
            self._files.get_file(self._path(name), str(file))

    def entries(self, prefix: str) -> dict[str, Entry]:
        """The objects whose names begin with the prefix, by name."""
        with self._in_words(f"list {prefix}"):
            folder, _, beginning = self._path(prefix).rpartition("/")
            found = self._files.find(folder, prefix=beginning, detail=True)
        skipped = len(self._path(""))
        return {
            path[skipped:]: Entry(int(facts["size"]), str(facts["ETag"]), facts["LastModified"])
            for path, facts in found.items()
            if facts["type"] == "file"  # a folder that was empty when it was listed, and no more when it was looked at
        }

    def read_all(self, names: list[str]) -> dict[str, bytes]:
        """Many small objects at once; those that are gone are left out."""
        if not names:
            return {}
        with self._in_words(f"read {names[0]} and others"):
            found = self._files.cat([self._path(name) for name in names], on_error="omit")
        if len(names) == 1 and isinstance(found, bytes):
            return {names[0]: found}
        return {name: found[self._path(name)] for name in names if self._path(name) in found}

    def delete(self, names: list[str]) -> None:
        """Remove objects, those that are there."""
        with self._in_words("delete objects"):
            for start in range(0, len(names), DELETED_AT_ONCE):
                keys = [{"Key": self._at(name)["Key"]} for name in names[start : start + DELETED_AT_ONCE]]
                delete = {"Objects": keys, "Quiet": True}
                self._files.call_s3("delete_objects", Bucket=self.address.bucket, Delete=delete)

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.address.bucket, self.address.prefix) if part) + f"/{name}"

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self.address.bucket, "Key": self._path(name).partition("/")[2]}

    def _body(self, stream: Any) -> bytes:
        import fsspec.asyn

        async def whole() -> bytes:
            return bytes(await stream.read())

        return bytes(fsspec.asyn.sync(self._files.loop, whole))

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        """Errors of the connection and of the server as one of ours; no key of ours is in it."""
        try:
            yield
        except FileNotFoundError as error:
            _bucket_is_there(error)
            raise
        except (OSError, BotoCoreError, ClientError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, ClientError) else error
            if isinstance(error, OSError) and not isinstance(error.__cause__, ClientError) and error.filename:
                raise  # of a file of ours
            raise BucketError(f"The bucket {self.address.url} did not let us {what}: {cause}") from error


def _bucket_is_there(error: FileNotFoundError) -> None:
    cause: Any = error.__cause__
    if isinstance(cause, ClientError) and cause.response["Error"].get("Code") == "NoSuchBucket":
        raise BucketError(f"There is no bucket '{cause.response['Error'].get('BucketName', '')}'.") from error


def _lost(error: OSError) -> bool:
    """Whether the condition of a request did not hold; a missing object does not match either."""
    cause: Any = error.__cause__
    code = cause.response["Error"].get("Code") if isinstance(cause, ClientError) else ""
    return code in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404")


def _age(answer: dict[str, Any]) -> float:
    """Both times are the server's, so no clock of ours counts."""
    now = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - answer["LastModified"]).total_seconds())
