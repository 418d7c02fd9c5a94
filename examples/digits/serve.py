"""Run the demonstration's sources until Ctrl-C, to try the commands by hand.

python -m examples.digits.serve /tmp/digits      # then, in another terminal: . /tmp/digits/env.sh
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from examples.digits.digits import put_digits
from tests.services.weed import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def sources(directory: Path) -> Iterator[S3Server]:
    """Run an S3 server with the bucket `digits`, and set what dataset.yaml and `ds` read from the environment."""
    with s3_server(directory / "s3", buckets=("digits",)) as server:
        variables = {
            **server.environment,
            "FOREBAY_HOME": str(directory / "home"),
            "FOREBAY_AUTHOR": "demo@example.org",
            "DIGITS_NFS": str(directory / "nfs"),
            "DIGITS_CACHE": str(directory / "cache"),
        }
        os.environ.update(variables)
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        (directory / "env.sh").write_text("".join(lines))
        yield server


def fill(server: S3Server) -> int:
    """Put the images into the bucket and the labels into the directory; return how many."""
    return put_digits("s3://digits/digits", server.options, Path(os.environ["DIGITS_NFS"]) / "labels")


def main() -> None:
    directory = Path(sys.argv[1]).absolute()
    with sources(directory) as server:
        count = fill(server)
        print(
            f"{count:,} images in s3://digits/digits at {server.endpoint}, {count:,} labels in {directory}/nfs/labels"
        )
        print(f"in another terminal: . {directory}/env.sh   (Ctrl-C here stops the server)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
