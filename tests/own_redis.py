"""A Redis of a test's own, which it may kill."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class OwnRedis:
    """A server that keeps nothing on disk, on a free port of this machine only."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again too."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """kill -9, where it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def run_redis(folder: Path) -> Iterator[OwnRedis]:
    """A server that ends with the block; without the program the test is skipped."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server here")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = OwnRedis(port, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
