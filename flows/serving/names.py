"""How an endpoint, a token of one, or a block for one may be called.

Digits come first in the classes: what begins as `[a` is markup to Rich, which prints these patterns in a terminal.
"""

from __future__ import annotations

NAME = r"^[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?$"
NAME_OR_NONE = r"^([0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?)?$"
