"""Deaths of a service under its keeper: by a signal from outside, and at chosen instructions by its own hand."""

import itertools
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .checks import CheckFailed, must
from .service import Service

# Takes the first line of the plan for the crash point of the life that begins. Words that follow are the service's.
LIFE = 'plan=$0; AGL_VIRTIO_CRASH=$(head -n 1 "$plan"); export AGL_VIRTIO_CRASH; sed -i 1d "$plan"; exec "$@"'
# Before and after the used index is written, between that and the interrupt, right after a chain was taken, in a replay.
POINTS = [f"{point}:{count}" for count in (1, 2, 5, 12) for point in ("before-used", "after-used", "before-call", "popped")]
POINTS += [f"ring-start:{ring}" for ring in (1, 2, 3, 4)]
# The keeper ends the service itself after these messages of replays and of the VMM, each once.
MESSAGES = ",".join([f"replay:{number}" for number in range(7, 60_000, 331)] + ["forward:9"])


class NoSound(CheckFailed):
    """Nothing is heard: perhaps nobody plays."""


class Deaths:
    """What a service dies of, and how long nothing is heard then.

    keeper  the keeper it lives under
    folder  where what it plays lands, as WAV files
    plan    the file that LIFE reads, for a service that was built with crash points
    """

    def __init__(self, keeper: Service, folder: Path, plan: Path | None):
        self.keeper = keeper
        self.folder = folder
        self.plan = plan
        self.causes: Iterator[str | None] = itertools.cycle(
            [cause for point in POINTS for cause in (None, point)] if plan else [None])
        self.pauses: list[float] = []
        self.injected = 0

    def next(self) -> None:
        """One more death, of the next cause; returns when sound is back."""
        cause = next(self.causes)
        if cause is None:
            victim = self.service()
            os.kill(victim, signal.SIGKILL)
            self.end_of(victim)
        else:
            # the life that begins now dies of it, at its first, second … time
            self.plan.write_text(f"{cause}\n")
            before = self.service()
            os.kill(before, signal.SIGKILL)
            victim = self.successor(before)
            if self.end_of(victim):
                self.injected += 1
            else:
                # the keeper was faster: this is the life after the one that had the plan
                os.kill(victim, signal.SIGKILL)
                self.end_of(victim)
        self.pauses.append(self.silence())

    def service(self) -> int:
        """The service's process."""
        children = self.children()
        must(len(children) == 1, f"the keeper has {len(children)} children")
        return children[0]

    def children(self) -> list[int]:
        """The keeper's processes."""
        tasks = Path(f"/proc/{self.keeper.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def successor(self, before: int, timeout: float = 5.0) -> int:
        """The service that has taken the plan, which follows this one."""
        end = time.monotonic() + timeout
        while self.plan.stat().st_size or not (after := [pid for pid in self.children() if pid != before]):
            must(time.monotonic() < end, f"no service within {timeout:g} s of a kill")
            time.sleep(0.001)
        return after[0]

    def end_of(self, victim: int, timeout: float = 8.0) -> bool:
        """Wait for the end of a process; whether it came."""
        try:
            process = os.pidfd_open(victim)
        except ProcessLookupError:
            return True  # it has ended already
        ended, _, _ = select.select([process], [], [], timeout)
        os.close(process)
        return bool(ended)

    def silence(self, timeout: float = 8.0) -> float:
        """Wait for sound; the seconds until it comes."""
        began = time.monotonic()
        size = self.played()
        while self.played() <= size:
            if time.monotonic() - began > timeout:
                raise NoSound(f"no sound within {timeout:g} s of a death")
            time.sleep(0.002)
        return time.monotonic() - began

    def played(self) -> int:
        """Bytes of sound so far."""
        return sum(file.stat().st_size for file in self.folder.glob("*.wav"))

    def by_the_keeper(self) -> int:
        """How often the keeper has ended the service in the middle of its messages."""
        return self.keeper.log.read_text(errors="replace").count("crash point: ")
