"""A network for pods: each has an address of its own, which this machine and the other pods reach."""

from __future__ import annotations

import subprocess

BRIDGE = "pft0"
HOST = "10.244.97.1"  # the node's own address


def open_bridge() -> None:
    close_bridge()
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("addr", "add", f"{HOST}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


def close_bridge() -> None:
    """Take it away with what a killed run left."""
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout.split()
    for name in left:
        if name.startswith(BRIDGE):
            ip("netns", "del", name)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def join(number: int) -> tuple[str, str]:
    """A network of one pod; its name and the pod's address."""
    name, address, outer = f"{BRIDGE}-{number}", HOST.rpartition(".")[0] + f".{number}", f"{BRIDGE}v{number}"
    ip("netns", "add", name)
    ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("link", "set", outer, "master", BRIDGE, "up")
    ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        ip("-n", name, "link", "set", device, "up")
    return name, address


def leave(name: str) -> None:
    ip("netns", "del", name)


def inside(name: str, command: list[str]) -> list[str]:
    """The command that runs `command` in that network, as the process that is started."""
    return ["nsenter", f"--net=/run/netns/{name}", *command]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
