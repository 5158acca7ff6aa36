"""Showing a person what a long set-up is doing, and what went wrong when it fails."""

import os
import subprocess
import sys
import time
from pathlib import Path


class SetupError(Exception):
    """Something could not be had. `remedy` says what a person can do about it."""

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(what)
        self.remedy = remedy


class Progress:
    """Numbered steps with their time, and a sign of life every few seconds within a step."""

    HEARTBEAT = 10.0

    def __init__(self, total: int):
        self.total = total
        self.number = 0
        self.step_began = time.monotonic()

    def step(self, what: str) -> None:
        """Announce the next step."""
        self.number += 1
        self.step_began = time.monotonic()
        print(f"[{self.number}/{self.total}] {what}", flush=True)

    def note(self, what: str) -> None:
        """Say something about the present step."""
        elapsed = int(time.monotonic() - self.step_began)
        print(f"      {elapsed // 60}:{elapsed % 60:02} {what}", flush=True)

    def run(self, command: list[str], log: Path, *, cwd: Path | None = None, env: dict | None = None) -> None:
        """Run a command with its output in `log` (appended); fail with the log's last lines."""
        with log.open("ab") as out:
            out.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            out.flush()
            process = subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
            try:
                while True:
                    try:
                        code = process.wait(timeout=self.HEARTBEAT)
                        break
                    except subprocess.TimeoutExpired:
                        self.note(_last_line(log))
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code != 0:
            tail = log.read_text(errors="replace").splitlines()[-25:]
            sys.stderr.write("\n".join(tail) + "\n")
            raise SetupError(f"{os.path.basename(command[0])} ended with {code}; the lines above end its log, {log}")


def _last_line(log: Path) -> str:
    """The newest line of a log that is still being written, short enough for a terminal."""
    with log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - 400))
        lines = f.read().decode(errors="replace").split("\n")
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "…")
