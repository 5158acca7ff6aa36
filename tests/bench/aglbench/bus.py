"""A message bus of a test's own, and what it asks of the services on it."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .progress import SetupError

PREFIX = "org.automotivelinux.Virtio1"
# Anybody may own any name and talk to anybody: the bus has no one on it but the test.
POLICY = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Bus:
    """A message bus in a folder of its own. Ends with the block."""

    def __init__(self, log_folder: Path):
        log_folder.mkdir(parents=True, exist_ok=True)
        self.log = log_folder / "dbus.log"
        # A socket's path has room for 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="agl-bus-"))
        self.address = f"unix:path={self.folder}/bus"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        config = self.folder / "bus.conf"
        config.write_text(POLICY.format(socket=self.folder / "bus"))
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"], stdout=out, stderr=out
            )
        end = time.monotonic() + 20
        while not (self.folder / "bus").is_socket():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SetupError("dbus-daemon does not start: " + self.log.read_text(), "apt-get install dbus-daemon")
            time.sleep(0.01)
        return self

    def __exit__(self, kind, value, trace) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, destination: str, path: str, method: str, *arguments: str) -> str:
        """Call a method with dbus-send's arguments; what it answers, or an error with what it said."""
        done = subprocess.run(
            ["dbus-send", f"--bus={self.address}", "--print-reply", "--reply-timeout=10000", f"--dest={destination}", path,
             method, *arguments],
            capture_output=True, text=True, check=False,
        )
        if done.returncode:
            raise BusError(done.stderr.strip())
        return done.stdout


class BusError(Exception):
    """The bus or a service refused."""


@dataclass(frozen=True)
class Process:
    """The process behind a name."""

    pid: int

    def kill(self) -> None:
        """End it without warning."""
        os.kill(self.pid, signal.SIGKILL)


class DeviceProxy:
    """A device service on the bus."""

    def __init__(self, bus: Bus, guest: str, device: str):
        self.bus = bus
        self.name = f"{PREFIX}.Device.{guest}.{device}"
        self.path = f"/{PREFIX.replace('.', '/')}/guests/{guest}/{device}"

    def pid(self) -> Process:
        """The process that has the name now."""
        said = self.bus.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetConnectionUnixProcessID",
                             f"string:{self.name}")
        return Process(int(re.search(r"uint32 (\d+)", said)[1]))

    def wait(self, timeout: float = 20.0) -> Process:
        """Wait until a process has the name."""
        return self.wait_pid(None, timeout)

    def wait_pid(self, other_than: Process | None, timeout: float) -> Process:
        """Wait until a process other than this one has the name."""
        end = time.monotonic() + timeout
        while True:
            try:
                process = self.pid()
                if process != other_than:
                    return process
            except BusError:
                pass
            if time.monotonic() > end:
                raise BusError(f"nobody has the name {self.name}")
            time.sleep(0.002)

    def call(self, method: str, *arguments: str) -> str:
        """Call a method of the device, such as `Can.Send`, with dbus-send's arguments; what it answers."""
        return self.bus.call(self.name, self.path, f"{PREFIX}.{method}", *arguments)

    def get(self, part: str, interface: str, name: str) -> str:
        """A property of a part of the device, or of itself (""), as dbus-send writes it."""
        path = f"{self.path}/{part}" if part else self.path
        said = self.bus.call(self.name, path, "org.freedesktop.DBus.Properties.Get",
                             f"string:{PREFIX}.{interface}", f"string:{name}")
        return said.split("variant", 1)[1].strip()

    def set(self, part: str, interface: str, name: str, value: str) -> None:
        """Set a property of a part of the device; `value` as dbus-send writes it."""
        self.bus.call(self.name, f"{self.path}/{part}", "org.freedesktop.DBus.Properties.Set",
                      f"string:{PREFIX}.{interface}", f"string:{name}", f"variant:{value}")
