"""A TCP proxy that is as far away and as fast as a given network: a process of its own, before a server on loopback.

    python benchmarks/slow_link.py SERVER_PORT --latency 0.05 --rate 200e6

It prints its port. What a client sends goes on after `latency` seconds, so a request waits that long, and a new
connection no longer than the first request on it. What the server sends shares `rate` bytes a second among all
connections. A line on its standard input is answered with the bytes that went to clients so far, and the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 128 << 10
_METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")


class SlowLink:
    """The way between clients and a server."""

    def __init__(self, port: int, *, latency: float, rate: float) -> None:
        self._port = port
        self._latency = latency
        self._rate = rate
        self._free = 0.0  # when the line has sent what it was given
        self.bytes_down = 0
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4 * _CHUNK)
        pumps = [
            asyncio.create_task(self._upwards(reader, up_writer)),
            asyncio.create_task(self._downwards(up_reader, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)  # whichever side broke off ends the other
        for end in (writer, up_writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()

    async def _upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while data := await reader.read(_CHUNK):
            self.requests += data.startswith(_METHODS)
            arrives = clock() + self._latency
            await asyncio.sleep(arrives - clock())
            writer.write(data)
            await writer.drain()

    async def _downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while data := await reader.read(_CHUNK):
            self.bytes_down += len(data)
            self._free = max(self._free, clock()) + len(data) / self._rate
            if (wait := self._free - clock()) > 0.002:  # what is due sooner may go at once: timers are no finer
                await asyncio.sleep(wait)
            writer.write(data)
            await writer.drain()


async def _run(options: argparse.Namespace) -> None:
    link = SlowLink(options.port, latency=options.latency, rate=options.rate)
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0, limit=4 * _CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"bytes_down": link.bytes_down, "requests": link.requests}), flush=True)


@dataclass(frozen=True)
class Link:
    """A running proxy; see `slow_link`."""

    port: int
    process: subprocess.Popen[str]

    def counts(self) -> dict[str, int]:
        """Return `bytes_down` and `requests` so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def slow_link(port: int, *, latency: float, rate: float) -> Iterator[Link]:
    """Run the proxy before a port of this machine."""
    command = [sys.executable, str(Path(__file__)), str(port), "--latency", str(latency), "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Link(int(process.stdout.readline()), process)
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rate", type=float, default=200e6)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
