"""Guests of the bench that the manager runs: defined by files, started with agl-virtioctl."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import qemu
from .checks import CheckFailed, must, run
from .guest import DRIVER_PATIENCE, Guest, GuestError
from .setup import pieces

DEFINITION = """
[guest]
description = "{description}"
program = "{program}"
memory = "256M"
cpus = 1
pinning = [[{processor}]]
hotplug_slots = 2
machine = {{ architecture = "aarch64", processor = "cortex-a57", accelerator = "tcg", options = {{ gic-version = "2" }} }}
serial = [{{ file = "{log}" }}, {{ connect = "{folder}/shell" }}]
arguments = [
    "-fsdev", "local,id=share,path={share},security_model=none",
    "-device", "virtio-9p-pci,fsdev=share,mount_tag=share",
]

[guest.boot]
kernel = "{kernel}"
initrd = "{initrd}"
append = "console=ttyAMA0 rdinit=/init panic=-1 pci=hpmemsize=2M {patience}"

[guest.restart]
policy = "on-failure"
delay_ms = 50
longest_delay_ms = 200
{more}
"""


class Manager:
    """agl-virtiod on a bus of its own, its guests, and the command line to both.

    programs  folder of the manager, the command line, the keeper and the services
    work      short folder for everything; its guests are ended with the block
    """

    def __init__(self, programs: Path, work: Path, bus: str, log: Path):
        self.programs = programs
        self.work = work
        self.bus = bus
        self.log = log
        self.guests = work / "guests.d"
        self.runtime = work / "run"
        self.guests.mkdir()
        self.process: subprocess.Popen | None = None
        program, variables = qemu.command(pieces().qemu)
        self.qemu = work / "qemu"
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        self.qemu.write_text(f'#!/bin/sh\nexec env {settings} {shlex.join(program)} "$@"\n')
        self.qemu.chmod(0o755)

    def __enter__(self) -> "Manager":
        self.start()
        return self

    def __exit__(self, kind, value, trace) -> None:
        self.stop()
        # guests go on without their manager: that is what it promises, and not what a test leaves behind
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start it and wait until it is on the bus."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [self.programs / "agl-virtiod", "--guests", self.guests, "--runtime", self.runtime, "--bus", self.bus,
                 "--programs", self.programs, "--log", "debug"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )
        wait("the manager is on the bus", lambda: self.try_ctl("list") is not None)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order; guests go on."""
        self.process.terminate()
        self.process.wait()

    def words(self, *words: str | Path) -> list[str]:
        """A command line of agl-virtioctl."""
        return [str(self.programs / "agl-virtioctl"), "--bus", self.bus, *(str(word) for word in words)]

    def ctl(self, *words: str | Path) -> str:
        """Run agl-virtioctl; its output."""
        return run(*self.words(*words))

    def refused(self, *words: str | Path) -> str:
        """Run agl-virtioctl, which must fail; what it says."""
        done = subprocess.run(self.words(*words), capture_output=True, text=True, check=False)
        must(done.returncode != 0, f"{' '.join(map(str, words))} was not refused")
        return done.stderr

    def try_ctl(self, *words: str) -> Any:
        """What agl-virtioctl answers as JSON, or None."""
        done = subprocess.run(self.words(*words, "--json"), capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def status(self, guest: str) -> dict:
        """All that is known of a guest."""
        found = self.try_ctl("status", guest)
        must(found is not None, f"there is no status of {guest}")
        return found

    def device(self, guest: str, device: str) -> dict:
        """All that is known of a device."""
        found = [entry for entry in self.status(guest)["devices"] if entry["name"] == device]
        must(len(found) == 1, f"{guest} has no {device}")
        return found[0]

    def wait_state(self, guest: str, *states: str) -> dict:
        """Wait until a guest is in one of these states."""
        def look():
            status = self.try_ctl("status", guest)
            return status if status and status["state"] in states else None
        return wait(f"{guest} is {' or '.join(states)}", look)

    def pids(self) -> list[int]:
        """Every process that the notes of what runs name."""
        found = []
        for note in self.runtime.glob("guests/*/running.json"):
            saved = json.loads(note.read_text())
            processes = [saved["vmm"], *(device["keeper"] for device in saved["devices"].values())]
            found += [process["pid"] for process in processes if process]
        return found


def wait(what: str, look, timeout: float = 60.0):
    """Look again and again until there is something; returns it."""
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        must(time.monotonic() < end, f"not within {timeout:g} s: {what}")
        time.sleep(0.02)


class ManagedGuest(Guest):
    """A guest that the manager runs: the bench has its shell and its log, the manager all the rest."""

    def __init__(self, manager: Manager, name: str, processor: int, log: Path, more: str = ""):
        super().__init__(log=log)
        self.processor = processor
        self.manager = manager
        self.name = name
        self.file = manager.guests / f"{name}.toml"
        self.more = more

    def define(self, more: str | None = None) -> None:
        """Write its file."""
        if more is not None:
            self.more = more
        self.file.write_text(DEFINITION.format(
            description="a guest of the bench", program=self.manager.qemu, log=self.log, folder=self._folder, share=self.share,
            processor=self.processor,
            kernel=pieces().kernel / "Image", initrd=self._folder / "initrd", patience=DRIVER_PATIENCE, more=self.more,
        ))

    def start(self, timeout: float = 120.0) -> "ManagedGuest":
        """Start it with agl-virtioctl, and wait until commands can be run."""
        listener = self.prepare()
        self.manager.ctl("start", self.name)
        self.join(listener, timeout)
        return self

    def prepare(self):
        """What a start needs: the shell's socket and the first file system."""
        self.initrd()
        # the end of an earlier run is none of the next one
        self._shell = None
        self.ended = self._ready = False
        (self._folder / "shell").unlink(missing_ok=True)
        return self._listen("shell")

    def join(self, listener, timeout: float = 120.0) -> None:
        """Wait until it has booted."""
        end = time.monotonic() + timeout
        self._shell = self._accept(listener, end)
        threading.Thread(target=self._follow, args=(self._shell,), daemon=True).start()
        with self.changed:
            self.changed.wait_for(lambda: self._ready or self.ended, max(0.0, end - time.monotonic()))
            if not self._ready:
                raise GuestError("the guest did not boot: " + self.ending())

    def reboots(self, how: Callable[[], object], timeout: float = 600.0) -> None:
        """Do what makes it boot anew within its machine, and wait until it has."""
        with self.changed:
            self._ready = False
        how()
        with self.changed:
            self.changed.wait_for(lambda: self._ready or self.ended, timeout)
            if not self._ready:
                raise GuestError("the guest did not boot again: " + self.ending())

    def _follow(self, shell) -> None:
        self._read()
        with self.changed:
            if self._shell is shell:
                self.ended = True
                self.changed.notify_all()

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(CheckFailed):
            self.manager.ctl("stop", "--timeout", "0", self.name)
        super().stop()
