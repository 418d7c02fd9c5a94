"""What the environment says; nothing else in Forebay reads it."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """The user's surroundings.

    Attributes:
        home: Catalog and stages of this machine: `FOREBAY_HOME`, else `forebay` in the XDG data directory.
        author: Who commits: `FOREBAY_AUTHOR`, else user@host.
        variables: What `${NAME}` in a manifest may refer to: the whole environment.
        dataset: The dataset meant when a command names none: `FOREBAY_DATASET`, else the only one there is.
    """

    home: Path
    author: str
    dataset: str | None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables above."""
        data = environment.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        home = environment.get("FOREBAY_HOME") or os.path.join(data, "forebay")
        return cls(
            home=Path(os.path.expanduser(home)).absolute(),
            author=environment.get("FOREBAY_AUTHOR") or f"{_user()}@{socket.gethostname()}",
            dataset=environment.get("FOREBAY_DATASET") or None,
            variables=environment,
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"uid{os.getuid()}"


def current_settings() -> Settings:
    """Read the settings of this process."""
    return Settings.of(os.environ)
