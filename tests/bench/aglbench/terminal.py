"""A program on a terminal, and what a person would see there."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from typing import Self

from .checks import must

SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78]")


class Screen:
    """What is on the screen: characters in their places, and nothing of colours."""

    def __init__(self, columns: int, rows: int):
        self.columns, self.rows = columns, rows
        self.line = self.column = 0
        self._rest = ""
        self.clear()

    def clear(self) -> None:
        """Make all of it blank."""
        self.cells = [[" "] * self.columns for _ in range(self.rows)]

    def write(self, text: str) -> None:
        """Show what a program has written. A sequence that is not whole yet waits for its end."""
        text = self._rest + text
        self._rest = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = SEQUENCE.match(text, at)
                if not found:
                    self._rest = text[at:]
                    return
                self._obey(found[1] or "", found[2] or "")
                at = found.end()
            else:
                self._put(text[at])
                at += 1

    def _obey(self, numbers: str, letter: str) -> None:
        first, _, second = numbers.partition(";")
        if letter == "H":
            self.line, self.column = int(first or 1) - 1, int(second or 1) - 1
        elif letter == "J" or (letter == "h" and numbers == "?1049"):
            self.clear()

    def _put(self, character: str) -> None:
        if character == "\n":
            self.line += 1
        elif character == "\r":
            self.column = 0
        else:
            if self.column == self.columns:
                self.line, self.column = self.line + 1, 0
            if self.line < self.rows:
                self.cells[self.line][self.column] = character
            self.column += 1
            return
        self.line = min(self.line, self.rows - 1)

    def lines(self) -> list[str]:
        """All lines, without what trails."""
        return ["".join(cells).rstrip() for cells in self.cells]


class Terminal:
    """A program that has a terminal of this size; ends with the block."""

    def __init__(self, command: Sequence[str], columns: int = 80, rows: int = 24):
        self.command = list(command)
        self.screen = Screen(columns, rows)
        self.raw = ""
        self.process: subprocess.Popen | None = None
        self._master = -1

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", self.screen.rows, self.screen.columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            self.command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**environment, "TERM": "xterm-256color"})
        os.close(slave)
        return self

    def __exit__(self, kind, value, trace) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def read(self, seconds: float) -> bool:
        """Show what comes within this time; false when nothing will come any more."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        data = b""
        # a terminal whose other end is closed has an error and no end
        with contextlib.suppress(OSError):
            data = os.read(self._master, 65536)
        text = data.decode(errors="replace")
        self.raw += text
        self.screen.write(text)
        return bool(data)

    def wait(self, what: str, look: Callable[[list[str]], object], timeout: float = 60.0) -> list[str]:
        """Wait until what is seen is so; all lines of it."""
        end = time.monotonic() + timeout
        while not look(self.screen.lines()):
            left = self.read(0.1)
            must(left and time.monotonic() < end, f"not seen: {what}\n" + "\n".join(self.screen.lines()))
        return self.screen.lines()

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def end(self, timeout: float = 60.0) -> int:
        """Wait until the program has ended, and show all that it wrote; its exit code."""
        limit = time.monotonic() + timeout
        while self.read(0.1):
            must(time.monotonic() < limit, "it does not end: " + " ".join(self.command))
        return self.process.wait(timeout)
