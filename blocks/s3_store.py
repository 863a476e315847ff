"""A store in a bucket with its keys, configured once."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class S3Store(Block):
    """Where machines that share no folder keep models, data and reports. Name it in `run.store` as `s3-store/NAME`.

    Example:
        ```python
        from blocks.s3_store import S3Store

        S3Store.load("team")
        ```
    """

    _block_type_name = "S3 Store"
    _block_type_slug = "s3-store"
    _description = "A bucket of an S3-compatible server (Amazon S3, MinIO, Ceph) as artifact store, with its keys."
    _documentation_url = "https://s3fs.readthedocs.io/en/latest/#credentials"  # type: ignore[assignment]

    location: str = Field(
        title="Bucket and prefix",
        description="The bucket and the prefix below which all lies, as models/trade.",
    )
    endpoint_url: str = Field(
        default="",
        title="Endpoint",
        description="Address of the server, as https://minio.example.org. Empty: AWS_ENDPOINT_URL of the worker's "
        "environment, else Amazon S3.",
    )
    key_id: str = Field(
        default="",
        title="Access key id",
        description="Empty: the worker's own right, from AWS_ACCESS_KEY_ID, a profile or the role of its machine.",
    )
    secret: SecretStr = Field(
        default=SecretStr(""), title="Secret access key", description="Belongs to the access key id."
    )
    region: str = Field(default="", title="Region", description="As eu-central-1; if the server asks for one.")
