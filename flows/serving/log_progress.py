"""How far a slow start is, read from the server's log."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flows.serving.variants.launch import LogSign

CLUSTER = "kubernetes: "  # what a cluster says of its pods, in words already


def progress_note(log_lines: Sequence[str], signs: Sequence[LogSign]) -> str:
    """The newest line that a sign knows, in words, as `loading weights 40 %`; empty if there is none."""
    for line in reversed(log_lines):
        if line.startswith(CLUSTER):
            return line.removeprefix(CLUSTER)[:200]
        for sign in signs:
            if match := re.search(sign.pattern, line, re.IGNORECASE):
                return f"{sign.words} {match[1]} %" if match.re.groups and match[1] else sign.words
    return ""
