"""Templates with named places, filled in once."""

from __future__ import annotations

import re


def fill(template: str, **values: str) -> str:
    """Replace each `{name}` by its value, once: braces in a value, or of other names, stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)
