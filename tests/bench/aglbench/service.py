"""Starting a vhost-user service on the host for a guest, and ending it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self


class ServiceError(Exception):
    """The service did not start or did not end as it should."""


class Service:
    """A service process that listens on a socket. Ends with the block.

    command  program and arguments; the word SOCKET stands for the socket's path
    socket   where it shall listen
    log      file for what it writes
    folder   where it runs
    """

    def __init__(self, command: Sequence[str | Path], socket: Path, log: Path, env: dict[str, str] | None = None,
                 folder: Path | None = None):
        self.command = [str(socket) if word == "SOCKET" else str(word) for word in command]
        self.socket = socket
        self.log = log
        self.env = env or {}
        self.folder = folder
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind, value, trace) -> None:
        self.stop()

    def start(self, timeout: float = 60.0) -> "Service":
        """Start it and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, env=dict(os.environ, **self.env), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )
        end = time.monotonic() + timeout
        while not listens(self.socket):
            if self.process.poll() is not None or time.monotonic() > end:
                said = self.log.read_text(errors="replace")[-2000:]
                raise ServiceError(f"{self.command[0]} does not listen (exit code {self.process.poll()}):\n{said}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 5.0) -> int | None:
        """Ask it to end; returns its exit code."""
        if not self.process:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
            if self.process.poll() is None:
                self.kill()
        return self.process.wait()


def listens(path: Path) -> bool:
    """Whether somebody listens on a socket: asked of the kernel, for a connection would be taken for a guest."""
    accepting = 0x10000
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[7] == str(path) and int(fields[3], 16) & accepting:
            return True
    return False
