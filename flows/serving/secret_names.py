"""Which environment variables hold secrets, by their names; and this process's environment without them."""

from __future__ import annotations

import os
import re

# As a word of the name, or as its end: TOKEN, HF_TOKEN_2, my_token, OPENAI_APIKEY, PGPASSWORD; not MAX_TOKENS.
SECRET = re.compile(
    r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|AUTH_STRING|CONNECTION_(URL|STRING))(_|$)"
    r"|(APIKEY|PASSWORD|PASSWD)$",
    re.IGNORECASE,
)
PREFECT = "PREFECT_"  # how we reach Prefect is nothing to what we start


def inherited() -> dict[str, str]:
    """The environment for what we start: this process's own, without secrets and without Prefect's settings."""
    return {k: v for k, v in os.environ.items() if not SECRET.search(k) and not k.startswith(PREFECT)}
