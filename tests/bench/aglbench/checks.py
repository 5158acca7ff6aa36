"""What all checks share: what must hold, programs of the host, and the table with a line for each check."""

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .bus import BusError
from .guest import GuestError
from .progress import SetupError
from .qmp import QmpError
from .service import ServiceError


class CheckFailed(Exception):
    """What must hold does not."""


class Skipped(Exception):
    """A check that says nothing about this service."""


# Whatever of the bench or of the service under test may end a check.
FAILURES = (CheckFailed, BusError, GuestError, QmpError, ServiceError, SetupError)


def must(holds: bool, otherwise: str) -> None:
    """Fail the check unless this holds."""
    if not holds:
        raise CheckFailed(otherwise)


def run(*words: str | Path, **more) -> str:
    """Run a program of the host; its output."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **more)
    must(done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def fresh(folder: Path) -> Path:
    """An empty folder: what an earlier run has left would be counted as this one's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def table(checks: Sequence[Callable[..., str | None]], do: Callable[[Callable[..., str | None]], str | None], out: Path) -> int:
    """Do the checks one after the other, a line for each; the exit status. `do` calls one with what it needs.

    A check is a function: its name says what must hold, what it returns is said beside the verdict.
    """
    failures = 0
    for check in checks:
        began = time.monotonic()
        try:
            verdict, said = "ok", do(check) or ""
        except Skipped as error:
            verdict, said = "skipped", str(error)
        except FAILURES as error:
            verdict, said = "FAILED", str(error)
            failures += 1
        print(f"{verdict:8}{time.monotonic() - began:6.1f} s  {check.__name__.replace('_', ' ')}: {said}", flush=True)
    print(f"{len(checks)} checks, {failures} failed; what they left behind is in {out}")
    return 1 if failures else 0
