"""Options that no manifest should hold: a directory for each secret, with a file for each option.

In a cluster these are mounted `Secret`s; on one machine people make them: `$FOREBAY_HOME/secrets/<name>/<option>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sources import SourceConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dataset_controller.fields import Reference


def with_secret(options: Mapping[str, Any], secret: Reference | None, directory: Path | None) -> dict[str, Any]:
    """Return options with those of a secret, which go first.

    Args:
        options: As declared.
        secret: Which one, if any.
        directory: Where secrets are.

    Raises:
        SourceConfigError: If the secret is not there; never with anything that it holds.
    """
    if secret is None:
        return dict(options)
    place = directory / secret.name if directory is not None else None
    try:
        if place is None:
            raise FileNotFoundError
        # what begins with a dot is how Kubernetes swaps all files at once
        files = [file for file in place.iterdir() if not file.name.startswith(".")]
        return {**options, **{file.name: file.read_text().removesuffix("\n") for file in files}}
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
        raise SourceConfigError(
            f"secret {secret.name!r} {reason}: {place or 'no directory of secrets'} should hold a file for each "
            "option, named as the option"
        ) from error
