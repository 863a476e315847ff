"""What a server says, made fit for a terminal, a record and a page: it may say anything, and not in good faith."""

from __future__ import annotations

import re

# Colours, cursor moves, titles and links of terminals: ECMA-48's CSI and OSC sequences, and two-character ones.
ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(\x07|\x1b\\)?|[0-Z\\^-~])")
LONGEST = 2000  # characters


def plain(text: str, longest: int = LONGEST) -> str:
    """The text without terminal sequences, control characters and halves of characters; cut to `longest` characters.

    Line breaks and tabs stay.
    """
    text = ESCAPE.sub("", text[: 4 * longest])
    spaced = (" " if sign.isspace() and sign not in "\n\t" else sign for sign in text)
    kept = "".join(sign for sign in spaced if sign.isprintable() or sign in "\n\t")
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"
