"""Command line: `python -m flows.serving token issue NAME TOKEN | list NAME | revoke NAME TOKEN`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.serving import records
from flows.serving.front import tokens


def add(commands: Any, store: argparse.ArgumentParser) -> None:
    """Add the command `token` to the parser's commands."""
    token = commands.add_parser("token", help="tokens of an endpoint whose front asks for one (serve.front.access)")
    what = token.add_subparsers(required=True, metavar="COMMAND")

    issuing = what.add_parser("issue", parents=[store], help="make one; it is printed, and can never be shown again")
    issuing.add_argument("--days", type=int, default=90, help="how long it is valid; 0: until revoked (default 90)")
    issuing.set_defaults(run=_issue)
    listing = what.add_parser("list", parents=[store], help="their names and what they are worth")
    listing.set_defaults(run=_list)
    revoking = what.add_parser("revoke", parents=[store], help="take one back, at once")
    revoking.set_defaults(run=_revoke)
    for one in (issuing, listing, revoking):
        one.add_argument("name", metavar="NAME", help="the endpoint")
    for one in (issuing, revoking):
        one.add_argument("token", metavar="TOKEN", help="the token's name, as nightly-batch")


def _issue(options: argparse.Namespace, folder: Path) -> int:
    plain = tokens.issue(folder, options.name, options.token, options.days)
    found = records.load(folder, options.name)
    until = f"for {options.days} days" if options.days else "until it is revoked"
    print(f"Token '{options.token}' of {options.name}, valid {until}; it cannot be shown again:", file=sys.stderr)
    print(plain)
    if found and not (found.front and found.front.guarded):
        print(f"{options.name} asks for no token: serve it with serve.front.access token.", file=sys.stderr)
    return 0


def _list(options: argparse.Namespace, folder: Path) -> int:
    if records.load(folder, options.name) is None:
        raise records.unknown(folder, options.name)
    now = datetime.now(UTC)
    rows = [("TOKEN", "STATE", "CREATED", "EXPIRES", "REVOKED")]
    for one in tokens.load(folder, options.name):
        rows.append((one.name, one.state(now), one.created, one.expires or "never", one.revoked or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _revoke(options: argparse.Namespace, folder: Path) -> int:
    revoked = tokens.revoke(folder, options.name, options.token)
    print(f"Token '{revoked.name}' of {options.name} was revoked at {revoked.revoked}.")
    return 0
