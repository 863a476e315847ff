"""A folder as a person writes it, looked at before it is used."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from flows.errors import ConfigError


def folder(given: str | Path, what: str) -> Path:
    """The whole path of a folder, links and `~` resolved; it need not be there yet.

    Args:
        given: as a person wrote it.
        what: the parameter it comes from, for the error.

    Raises:
        ConfigError: there can be no such folder, or there is something else.
    """
    shown = repr(str(given)[:200])
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", str(given)):
        raise ConfigError(f"{what}: {shown} is an address. Give the path of a folder.")
    try:
        path = Path(given).expanduser().resolve()
        if os.path.lexists(path) and not path.is_dir():
            raise ConfigError(f"{what}: {shown} is no folder. Give the path of one.")
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        why = "there is something on the way that is no folder" if error.errno == errno.ENOTDIR else error.strerror
        raise ConfigError(f"{what}: {shown} cannot be used as a folder: {why}.") from error
    except (RuntimeError, ValueError) as error:  # no such user, links in a circle, a zero byte
        raise ConfigError(f"{what}: {shown} cannot be used as a folder: {str(error)[:200].rstrip('.')}.") from error
    return path
