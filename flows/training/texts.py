"""Cutting texts for pre-training: at sentence ends, so that no token is thrown away and each piece starts afresh."""

from __future__ import annotations

import re
from collections.abc import Callable

SENTENCE_END = re.compile(r"(?<=[.!?。？！])\s+|\n+")


def cut_text(text: str, most: int, count: Callable[[str], int]) -> list[str]:
    """Pieces of at most `most` tokens as `count` counts them, together the whole text, spaces evened out.

    A sentence longer than that is cut between words, a word longer than that between characters.
    """
    pieces: list[str] = []
    current = ""
    for sentence in SENTENCE_END.split(text.strip()):
        for part in _parts(sentence, most, count):
            together = f"{current} {part}".strip()
            if current and count(together) > most:
                pieces.append(current)
                current = part
            else:
                current = together
    return [*pieces, current] if current else pieces


def _parts(sentence: str, most: int, count: Callable[[str], int]) -> list[str]:
    if count(sentence) <= most or len(sentence) < 2:
        return [sentence] if sentence.strip() else []
    middle = sentence.find(" ", len(sentence) // 2)
    if middle < 0:
        middle = sentence.rfind(" ")
    if middle <= 0:
        middle = len(sentence) // 2
    first, second = sentence[:middle].strip(), sentence[middle:].strip()
    return _parts(first, most, count) + _parts(second, most, count)
