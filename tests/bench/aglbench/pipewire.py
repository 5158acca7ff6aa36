"""A sound server of the test's own: PipeWire without any hardware, with null sinks that keep time."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from .service import ServiceError

PACKAGES = ["pipewire", "wireplumber", "dbus-daemon", "libspa-0.2-modules"]


class PipeWire:
    """A bus, PipeWire and its session manager, seen only through `env`. Ends with the block.

    folder  where its sockets, its configuration and its logs are; a short path, for the sockets' sake
    sinks   names of the null sinks to have; the first is the default
    """

    def __init__(self, folder: Path, sinks: Sequence[str] = ("speaker",), rate: int = 48000):
        self.folder = folder
        self.sinks = sinks
        self.rate = rate
        self.env = {
            "XDG_RUNTIME_DIR": str(folder), "PIPEWIRE_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/bus",
        }
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind, value, trace) -> None:
        self.stop()

    def start(self, timeout: float = 15.0) -> Self:
        """Start everything and wait until the sinks are there."""
        end = time.monotonic() + timeout
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        drop_in = self.folder / "config/pipewire/pipewire.conf.d/bench.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(
            f"context.properties = {{ default.clock.rate = {self.rate} }}\ncontext.objects = [\n"
            + "".join(
                "  { factory = adapter args = { factory.name = support.null-audio-sink media.class = Audio/Sink "
                f"node.name = {name} node.description = {name} audio.position = [ FL FR ] priority.session = {1000 - index} }} }}\n"
                for index, name in enumerate(self.sinks)
            )
            + "]\n"
        )
        self._spawn("dbus-daemon", "--session", "--nofork", f"--address=unix:path={self.folder}/bus")
        self._until(lambda: (self.folder / "bus").is_socket(), end, "the bus")
        self._spawn("pipewire")
        self._until(lambda: (self.folder / "pipewire-0").is_socket(), end, "PipeWire")
        self._spawn("wireplumber")
        self._until(lambda: self._ready(), end, "the sinks")
        return self

    def _ready(self) -> bool:
        # the session manager is at work once it has chosen a default
        return any(
            entry.get("key") == "default.audio.sink"
            for thing in self.dump() for entry in (thing.get("metadata") or [])
        )

    def dump(self) -> list[dict]:
        """PipeWire's graph: every object with its properties."""
        out = subprocess.run(["pw-dump"], env=self.environment(), capture_output=True, text=True, check=False, timeout=10).stdout
        try:
            return json.loads(out or "[]")
        except ValueError:
            return []

    def nodes(self, **properties: str) -> list[dict]:
        """The properties of every node that has these; `media_class` stands for `media.class`."""
        found = [thing["info"]["props"] for thing in self.dump() if thing.get("type", "").endswith(":Node") and thing.get("info")]
        return [node for node in found if all(node.get(key.replace("_", ".")) == value for key, value in properties.items())]

    def environment(self) -> dict[str, str]:
        """The environment of a program that shall use this server."""
        return dict(os.environ, **self.env)

    def record(self, sink: str, file: Path, rate: int = 48000, channels: int = 2) -> subprocess.Popen:
        """Start recording what a sink plays, to a WAV file of 32-bit floats; end it with SIGINT."""
        command = ["pw-record", "-P", "{ stream.capture.sink = true }", f"--target={sink}", f"--rate={rate}",
                   f"--channels={channels}", "--format=f32", str(file)]
        process = subprocess.Popen(command, env=self.environment())
        self._processes.append(process)
        return process

    def stop(self) -> None:
        """End all that was started, the newest first."""
        while self._processes:
            process = self._processes.pop()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _spawn(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.log").open("ab") as out:
            self._processes.append(subprocess.Popen(
                command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            ))

    def _until(self, condition, end: float, what: str) -> None:
        while not condition():
            if time.monotonic() > end or any(process.poll() is not None for process in self._processes):
                raise ServiceError(f"{what} did not come up; see the logs in {self.folder}")
            time.sleep(0.02)
