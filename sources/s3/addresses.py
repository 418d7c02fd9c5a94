"""The addresses of a server's name."""

from __future__ import annotations

import socket
from typing import Any


class Places:
    """The addresses of a server, and which of them works.

    Args:
        address: Its name and port.

    Attributes:
        working: The number of the one that works, as far as is known.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._found: list[tuple[int, Any]] = []
        self.working = 0

    def found(self) -> list[tuple[int, Any]]:
        """Look the name up, if it is not known.

        Raises:
            OSError: If it has no address.
        """
        if not self._found:
            answers = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
            self._found = [(family, address) for family, _, _, _, address in answers]
        return self._found

    def has_after(self, place: int) -> bool:
        """Whether there is another one to try after this one failed."""
        return place + 1 < len(self._found)

    def forget(self) -> None:
        """Look the name up again when it is needed."""
        self._found, self.working = [], 0
