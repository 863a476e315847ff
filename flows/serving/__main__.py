"""Command line: `python -m flows.serving list | logs NAME | stop NAME | stop --all | ask NAME QUESTION |
token issue, list or revoke`, with `--store DIR` for another store than FINETUNE_STORE."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows.errors import FinetuneError, ServingError
from flows.serving import listing, records, token_commands
from flows.serving.ask import ask
from flows.serving.endpoint import Endpoint
from flows.serving.registry import RUNTIMES
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.store.layout import ENVIRONMENT_VARIABLE
from flows.store.opening import open_store


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit code 0, or 1 with one message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        store = open_store(options.store)
        try:
            return int(options.run(options, store.endpoints))
        except OSError as error:  # as a store on a full disk, or one that is not ours
            print(f"{error}. Look at the store in {store.root}.", file=sys.stderr)
    except FinetuneError as error:
        print(error, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.serving", description="Endpoints of this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    store = argparse.ArgumentParser(add_help=False)
    help_store = f"artifact store; holds endpoints/ (default: {ENVIRONMENT_VARIABLE}, else in ~/.local/share)"
    store.add_argument("--store", default="", metavar="DIR", help=help_store)

    listing = commands.add_parser("list", parents=[store], help="all endpoints and their state, asked for now")
    listing.set_defaults(run=_list)

    stopping = commands.add_parser("stop", parents=[store], help="stop one endpoint, or all of this store")
    which = stopping.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME")
    which.add_argument("--all", action="store_true", help="every endpoint of this store")
    stopping.set_defaults(run=_stop)

    logs = commands.add_parser("logs", parents=[store], help="the end of an endpoint's log")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("--lines", type=int, default=50, help="how many lines (default 50)")
    logs.set_defaults(run=_logs)

    asking = commands.add_parser("ask", parents=[store], help="ask an endpoint a question")
    asking.add_argument("name", metavar="NAME")
    asking.add_argument("question", metavar="QUESTION")
    asking.add_argument("--instruction", default="", help="text before the question, as in training")
    asking.add_argument("--max-tokens", type=int, default=64, help="longest reply, in tokens (default 64)")
    asking.set_defaults(run=_ask)

    token_commands.add(commands, store)
    return parser


def _list(options: argparse.Namespace, folder: Path) -> int:
    endpoints = listing.list_records(folder)
    if not endpoints:
        print(f"No endpoints in {folder}.")
        return 0
    rows = [("NAME", "STATE", "URL", "PROCESS", "SINCE", "MODEL")]
    rows += [
        (e.name, e.state.value, e.public_url or "-", _process(e), e.started or "-", e.model or "-") for e in endpoints
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for endpoint in endpoints:
        print(f"\n{endpoint.name}: {endpoint.state.words} {endpoint.why}".rstrip())
    return 0


def _process(endpoint: Endpoint) -> str:
    return endpoint.process.words.split()[-1] if endpoint.url else "-"


def _stop(options: argparse.Namespace, folder: Path) -> int:
    wanted = records.names(folder) if options.all else [options.name]
    code = 0
    for name in wanted:
        try:
            endpoint = stop_endpoint(name, folder)
            if endpoint:
                print(f"{endpoint.name}: {endpoint.state.words} {endpoint.why}")
            elif not options.all:  # what is beside a name is gone together with it
                raise records.unknown(folder, name)
        except (FinetuneError, OSError) as error:  # one that cannot be stopped keeps no other from it
            code = 1
            print(f"{name}: {error}" if options.all else error, file=sys.stderr)
    return code


def _logs(options: argparse.Namespace, folder: Path) -> int:
    endpoint = records.load(folder, options.name)
    if endpoint is None:
        raise records.unknown(folder, options.name)
    print("\n".join(RUNTIMES[endpoint.runtime].logs(endpoint.process, options.lines)))
    return 0


def _ask(options: argparse.Namespace, folder: Path) -> int:
    endpoint = records.load(folder, options.name)
    if endpoint is None:
        raise records.unknown(folder, options.name)
    if endpoint.state in (State.STOPPED, State.DRAINING):
        raise ServingError(
            f"{endpoint.name} is {endpoint.state.value}: {endpoint.why} Serve it again with serve-variant."
        )
    print(ask(endpoint, options.question, options.instruction, options.max_tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main())
