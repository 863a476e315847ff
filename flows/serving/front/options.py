"""What a person chooses for the front of an endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flows.config import Config
from flows.errors import ServingError
from flows.serving.front import certificate, haproxy

RUNTIMES = ("process", "docker")


class FrontOptions(Config):
    """One address for the endpoint's name, in front of whatever model serves under it."""

    enabled: bool = Field(
        default=False,
        title="Front",
        description="Give the name one address that stays through promotions, roll-backs and restarts: a HAProxy.",
    )
    host: str = Field(
        default="127.0.0.1",
        title="Host",
        description="Address of this machine on which the front listens: 127.0.0.1 is reached from this machine only, "
        "0.0.0.0 from everywhere.",
        pattern=r"^(\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]*)$",
    )
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        title="Port",
        description="TCP port of the front; 0 means a free one, which the name then keeps.",
    )
    public_host: str = Field(
        default="",
        title="Host name for clients",
        description="What stands in the address that clients are given, with TLS a name of the certificate; empty is "
        "the host, or 127.0.0.1 for 0.0.0.0.",
        pattern=r"^[A-Za-z0-9.:-]{0,253}$",
    )
    tls_certificate: str = Field(
        default="",
        title="TLS certificate",
        description="Path of a PEM file with the certificate, those between it and its root, and the private key (or "
        "the key in a file of the same name with .key behind it); empty means plain HTTP.",
        pattern=r"^[^\s\"'\\#$]*$",
    )
    access: Literal["open", "token"] = Field(
        default="open",
        title="Access",
        description="open: whoever reaches the address may ask. token: each request on every path needs one of the "
        "endpoint's tokens, which the flow issue-token makes.",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=64,
        title="Replicas",
        description="Servers of the model on this machine that share the requests; each needs its own memory. In a "
        "promotion one is checked and takes over, the others follow.",
    )
    replica_devices: list[Annotated[str, Field(pattern=r"^\d{1,3}(,\d{1,3})*$")]] = Field(
        default=[],
        max_length=64,
        title="GPUs of the replicas",
        description="Numbers of the GPUs of each replica, an entry a replica, as 0,1 and 2,3; empty: all see the same.",
    )
    drain_s: int = Field(
        default=30,
        ge=1,
        le=86400,
        title="Draining (s)",
        description="Seconds that running requests get to finish on a server that gets no new ones, before it is "
        "ended.",
    )
    silence_s: int = Field(
        default=3600,
        ge=1,
        le=86400,
        title="Silence (s)",
        description="Seconds without a byte from the model after which a request is given up.",
    )


def problems(options: FrontOptions, runtime: str, server_port: int) -> list[str]:
    """What cannot work on this machine, a line each; of a front that is switched off nothing else is asked."""
    if not options.enabled:
        alone = "serve.front.replicas: replicas share their requests through the front. Switch serve.front.enabled on."
        return [alone] if options.replicas > 1 else []
    found = []
    if runtime not in RUNTIMES:
        found.append(
            f"serve.front.enabled: runtime {runtime} has its own stable address (a Service, the URL). Switch the front "
            f"off, or choose runtime {' or '.join(RUNTIMES)}."
        )
    if options.replica_devices and runtime != "process":
        found.append("serve.front.replica_devices: only replicas of the runtime process get GPUs of their own.")
    elif options.replica_devices and len(options.replica_devices) < options.replicas:
        found.append(
            f"serve.front.replica_devices: {len(options.replica_devices)} entries for {options.replicas} replicas. "
            "Give one for each, or none."
        )
    if options.port and options.port == server_port:
        found.append(f"serve.front.port: {options.port} is serve.port too. Leave serve.port 0: the front is asked.")
    try:
        haproxy.program()
    except ServingError as error:
        found.append(f"serve.front.enabled: {error}")
    if options.tls_certificate and (wrong := certificate.refused(options.tls_certificate)):
        found.append(f"serve.front.tls_certificate: {wrong}")
    return found
