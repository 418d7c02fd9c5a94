"""Logs for machines: one JSON object a line. Whoever runs the worker installs it; a library has no handlers."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

_PAIR = re.compile(r"(?:^|\s)([a-z_]{1,32})=")


class JsonLines(logging.Formatter):
    """Write a record as JSON: time, level, logger, message, and each `key=value` of the message as a field."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        message = record.getMessage()
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            "fields": _fields_of(message),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _fields_of(message: str) -> dict[str, str]:
    """Take `key=value key=several words` apart; a value goes on to the next key."""
    pieces = _PAIR.split(message)
    return {key: value.strip() for key, value in zip(pieces[1::2], pieces[2::2], strict=True)}
