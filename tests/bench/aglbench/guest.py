"""Booting a guest and working in it from a test on the host.

    with Guest(snd=["/run/snd.sock"]) as guest:
        print(guest.run("aplay -l").text)
        playing = guest.spawn("aplay -D hw:0,0 /share/long.wav")
        guest.pause(); guest.resume()
        playing.wait()

The guest is an arm64 machine emulated by QEMU. Its kernel's log goes to a file; commands travel over a second serial
port that only the bench uses (guest/agent says how); files are exchanged through a folder that the guest sees as /share.
"""

import base64
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from . import qemu
from .cpio import Archive as Cpio
from .qmp import Qmp, QmpError
from .setup import pieces

BENCH = Path(__file__).resolve().parent.parent

# A loaded machine must not make the driver give up on a device that is merely slow (default 1000 ms).
DRIVER_PATIENCE = "virtio_snd.msg_timeout_ms=20000"
# So that the log tells when the guest sleeps.
TALK_WHILE_SUSPENDING = "loglevel=8 no_console_suspend pm_debug_messages suspend.pm_test_delay=1"

# Stands for 48 (media).
MEDIA_NUMBER = 29

# What QEMU attaches a service of each type with. Types without a front end of their own go by the generic one, which
# must be told the device's number, queues and size of its configuration space.
FRONT_ENDS = {
    "snd": "vhost-user-snd-pci",
    "scmi": "vhost-user-scmi-pci",
    "rng": "vhost-user-rng-pci",
    "input": "vhost-user-input-pci",
    "gpio": "vhost-user-gpio-pci",
    "i2c": "vhost-user-i2c-pci",
    "spi": "vhost-user-spi-pci",
    "rtc": "vhost-user-rtc-pci",
    "can": "vhost-user-test-device-pci,virtio-id=36,num_vqs=3,vq_size=256,config_size=2",
    "rpmb": "vhost-user-test-device-pci,virtio-id=28,num_vqs=1,vq_size=256,config_size=3",
    "video-decoder": "vhost-user-test-device-pci,virtio-id=31,num_vqs=2,vq_size=1024,config_size=12",
    "video-encoder": "vhost-user-test-device-pci,virtio-id=30,num_vqs=2,vq_size=1024,config_size=12",
    # Debian's QEMU ends itself over device 48, whose name it does not know: so it is given the number of another one,
    # and the driver that a check loads is built for that number. Nothing in the guest drives a device 29 (mac80211-hwsim).
    "media": f"vhost-user-test-device-pci,virtio-id={MEDIA_NUMBER},num_vqs=2,vq_size=256,config_size=40",
}


class GuestError(Exception):
    """The guest did not do what was asked of it in time, or has ended."""


@dataclass(frozen=True)
class Result:
    """What a command in the guest did."""

    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        """All it wrote, standard output and error together."""
        return "".join(line + "\n" for line in self.lines)


class Job:
    """A command that runs in the guest."""

    def __init__(self, guest: "Guest", number: int, command: str):
        self._guest = guest
        self.number = number
        self.command = command
        self.lines: list[str] = []
        self.code: int | None = None

    def _wait(self, condition, timeout: float, what: str):
        with self._guest.changed:
            self._guest.changed.wait_for(lambda: condition() or self._guest.ended, timeout)
            value = condition()
            if not value:
                reason = f"the guest has ended: {self._guest.ending()}" if self._guest.ended else f"not within {timeout:g} s"
                said = "".join(f"\n    | {line}" for line in self.lines[-20:])
                raise GuestError(f"{what}: {reason}; command: {self.command.strip()[:200]}{said}")
            return value

    def wait(self, timeout: float = 60.0) -> Result:
        """Wait until it has ended."""
        self._wait(lambda: self.code is not None, timeout, "waiting for the end")
        return Result(self.code, list(self.lines))

    def expect(self, pattern: str, timeout: float = 60.0) -> re.Match:
        """Wait until it has written a line in which this regular expression is found."""
        return self.wait_line(re.compile(pattern).search, timeout, repr(pattern))

    def wait_line(self, test: Callable[[str], Any], timeout: float = 60.0, what: str = "a line") -> Any:
        """Wait until it has written a line for which `test` gives something true; returns that."""

        def search():
            found = next((value for line in self.lines if (value := test(line))), None)
            # it will not write any more
            return found or (self if self.code is not None else None)

        found = self._wait(search, timeout, f"waiting for {what}")
        if found is self:
            said = "".join(f"\n    | {line}" for line in self.lines[-20:])
            raise GuestError(f"ended with {self.code} before it wrote {what}: {self.command.strip()[:200]}{said}")
        return found

    def follow(self) -> Iterator[str]:
        """Every line it writes, as it comes, until it ends."""
        shown = 0
        while True:
            with self._guest.changed:
                while len(self.lines) == shown and self.code is None and not self._guest.ended:
                    self._guest.changed.wait()
                fresh = self.lines[shown:]
            if not fresh:
                return
            yield from fresh
            shown += len(fresh)

    def kill(self) -> None:
        """End it and everything it has started."""
        self._guest.tell(f"K {self.number}")


class Guest:
    """One guest. All waits have deadlines; its QEMU ends with the block, and with the process that made it.

    snd      sockets of sound services, one card each, in this order
    vhost    sockets of further services, as (type, path); the types are those of FRONT_ENDS
    devices  further words for QEMU's command line
    share    folder of the host that the guest sees as /share (default: a temporary one, `guest.share`)
    log      file for the kernel's log (default: in the run's temporary folder)
    append   further words for the kernel's command line
    files    further files for the guest's file system: name -> content or path
    limit    seconds after which QEMU is ended whatever happens
    event_idx  whether the services' queues may have VIRTIO_F_EVENT_IDX
    qmp      where QEMU should make one more monitor socket, for somebody else's use
    """

    def __init__(
        self, snd: Sequence[str | Path] = (), *, vhost: Sequence[tuple[str, str | Path]] = (), devices: Sequence[str] = (), share: Path | None = None,
        log: Path | None = None, append: str = "", files: dict[str, bytes | Path] | None = None, memory: int = 256,
        cpus: int = 1, limit: float = 600.0, qmp: Path | None = None, controls: bool = True,
        event_idx: bool = True,
    ):
        self.vhost = [("snd", Path(path)) for path in snd] + [(kind, Path(path)) for kind, path in vhost]
        self.devices = list(devices)
        self.append = append
        self.files = files or {}
        self.memory = memory
        self.cpus = cpus
        self.limit = limit
        self.controls = controls
        self.event_idx = event_idx
        self.extra_qmp = qmp
        # short, for a socket's path has room for 107 characters
        _remove_left_over()
        self._folder = Path(tempfile.mkdtemp(prefix=f"agl-bench-{os.getpid()}-"))
        self.share = Path(share) if share else self._folder / "share"
        self.share.mkdir(parents=True, exist_ok=True)
        self.log = Path(log) if log else self._folder / "kernel.log"
        self.changed = threading.Condition()
        self.ended = False
        self.noise: list[str] = []  # lines on the command port that are not the agent's
        self._ready = False
        self._jobs: dict[int, Job] = {}
        self._process: subprocess.Popen | None = None
        self._shell: socket.socket | None = None
        self._write_lock = threading.Lock()
        self.qmp: Qmp | None = None
        self.code: int | None = None  # QEMU's exit code, once it has ended

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind, value, trace) -> None:
        self.stop()

    def start(self, timeout: float = 90.0) -> "Guest":
        """Boot, and wait until commands can be run."""
        end = time.monotonic() + timeout
        for _, path in self.vhost:
            if not path.is_socket():
                raise GuestError(f"{path} is not a socket: start the service first")
        listeners = {name: self._listen(name) for name in ("shell", "qmp")}
        words, variables = self.command()
        with (self._folder / "qemu.log").open("wb") as out:
            self._process = subprocess.Popen(
                words, env=dict(os.environ, **variables), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        threading.Thread(target=self._watch, daemon=True).start()
        connections = {}
        for name, listener in listeners.items():
            connections[name] = self._accept(listener, end)
        self._shell = connections["shell"]
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.qmp = Qmp(connections["qmp"])
        except QmpError as error:
            # it ends while it sets up its devices, when a service hangs up
            with self.changed:
                self.changed.wait_for(lambda: self.ended, 2.0)
            raise GuestError(f"QEMU did not start: {error}; {self.ending()}") from error
        with self.changed:
            self.changed.wait_for(lambda: self._ready or self.ended, max(0.0, end - time.monotonic()))
            if not self._ready:
                raise GuestError("the guest did not boot: " + self.ending())
        return self

    def stop(self) -> int | None:
        """End QEMU, cleanly if it still listens, and remove the temporary folder. Returns QEMU's exit code."""
        if self._process and self._process.poll() is None:
            if self.qmp:
                with contextlib.suppress(QmpError):
                    self.qmp.execute("quit", timeout=2.0)
            try:
                self._process.wait(timeout=3.0)
            except subprocess.TimeoutExpired:
                # `timeout` passes this on to QEMU, and follows it with SIGKILL (-k)
                self._process.terminate()
                self._process.wait()
        if self._process:
            self.code = self._process.wait()
        if self.qmp:
            self.qmp.close()
        if self._shell:
            self._shell.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        return self.code

    def wait_end(self, timeout: float = 30.0) -> int:
        """Wait until the guest has switched itself off; returns QEMU's exit code."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise GuestError(f"the guest still runs after {timeout:g} s") from None

    def command(self) -> tuple[list[str], dict[str, str]]:
        """QEMU's command line and the variables it needs."""
        have = pieces()
        program, variables = qemu.command(have.qemu)
        initrd = self.initrd()
        words = [
            # a bench that is killed takes its QEMU along: `timeout` passes the signal on
            "setpriv", "--pdeathsig", "TERM", "timeout", "-k", "2", str(int(self.limit)), *program,
            "-nodefaults", "-no-reboot", "-display", "none",
            "-machine", "virt,gic-version=2,memory-backend=memory", "-cpu", "cortex-a57", "-accel", "tcg",
            "-smp", str(self.cpus), "-m", str(self.memory),
            # vhost-user: the services map the guest's memory
            "-object", f"memory-backend-memfd,id=memory,size={self.memory}M,share=on",
            "-kernel", str(have.kernel / "Image"), "-initrd", str(initrd),
            "-append", f"console=ttyAMA0 rdinit=/init panic=-1 {DRIVER_PATIENCE} {TALK_WHILE_SUSPENDING} {self.append}",
            "-chardev", f"file,id=log,path={self.log}", "-serial", "chardev:log",
            "-chardev", f"socket,id=shell,path={self._folder}/shell", "-serial", "chardev:shell",
            "-chardev", f"socket,id=monitor,path={self._folder}/qmp", "-object", "monitor-qmp,id=monitor,chardev=monitor",
            "-fsdev", f"local,id=share,path={self.share},security_model=none",
            "-device", "virtio-9p-pci,fsdev=share,mount_tag=share",
        ]
        if self.extra_qmp:
            words += ["-qmp", f"unix:{self.extra_qmp},server=on,wait=off"]
        for index, (kind, path) in enumerate(self.vhost):
            words += ["-chardev", f"socket,id=vhost{index},path={path}"]
            options = f",event_idx={'on' if self.event_idx else 'off'}"
            if kind == "snd":
                options += f",controls={'on' if self.controls else 'off'}"
            words += ["-device", f"{FRONT_ENDS[kind]},id=device{index},chardev=vhost{index}{options}"]
        return words + self.devices, variables

    def initrd(self) -> Path:
        """The guest's first file system, written anew."""
        have = pieces()
        initrd = self._folder / "initrd"
        with initrd.open("wb") as out:
            out.write((have.userland / "userland.cpio").read_bytes())
            out.write((have.kernel / "modules.cpio").read_bytes())
            out.write(self._overlay())
        return initrd

    def _overlay(self) -> bytes:
        """This run's own files for the guest: the scripts of guest/, and what the test gave."""
        tree = Cpio()
        for script in sorted((BENCH / "guest").iterdir()):
            name = "init" if script.name == "init" else f"bench/{script.name}"
            tree.file(name, script.read_bytes(), 0o755)
        for name, content in self.files.items():
            tree.file(name, content.read_bytes() if isinstance(content, Path) else content, 0o755)
        return tree.bytes()

    # -- commands -----------------------------------------------------------------------------------------------------

    def spawn(self, command: str) -> Job:
        """Start a command, or a whole script, in the guest's shell. Several may run at once."""
        with self.changed:
            number = len(self._jobs) + 1
            job = self._jobs[number] = Job(self, number, command)
        script = command.encode()
        if len(script) > 2000:
            # too long for one line of the serial port
            (self.share / f".job-{number}").write_bytes(script)
            script = f". /share/.job-{number}".encode()
        self.tell(f"R {number} {base64.b64encode(script).decode()}")
        return job

    def run(self, command: str, timeout: float = 60.0, *, check: bool = True) -> Result:
        """Run a command in the guest and wait for it; with `check` it must succeed."""
        result = self.spawn(command).wait(timeout)
        if check and result.code != 0:
            raise GuestError(f"ended with {result.code}: {command.strip()[:200]}\n{result.text}")
        return result

    def power_off(self, timeout: float = 30.0) -> int:
        """Let the guest switch itself off."""
        self.spawn("poweroff -f")
        return self.wait_end(timeout)

    def pause(self) -> None:
        """Stop the guest's processors, as a VMM does for a snapshot."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let them run on."""
        self.qmp.execute("cont")

    def sleep(self, timeout: float = 30.0) -> Job:
        """Suspend the guest, to idle, and return when it sleeps: its devices are then suspended. Then call `wake`."""
        asleep = len(self._asleep())
        job = self.spawn("suspend")
        end = time.monotonic() + timeout
        while len(self._asleep()) == asleep:
            if job.code is not None or self.ended or time.monotonic() > end:
                raise GuestError(f"the guest does not fall asleep: {job.lines} " + self.ending())
            with self.changed:
                self.changed.wait(0.02)
        return job

    def wake(self, sleeping: Job, timeout: float = 30.0) -> Result:
        """Wake the guest and wait until it is up again."""
        # any character on the serial port does; an empty line means nothing to the agent
        self.tell("")
        result = sleeping.wait(timeout)
        if result.code != 0:
            raise GuestError(f"suspend or resume failed: {result.text}")
        return result

    def _asleep(self) -> list[str]:
        return re.findall(r"PM: suspend-to-idle", self.log.read_text(errors="replace"))

    def wait_log(self, pattern: str, timeout: float = 30.0) -> re.Match:
        """Wait for a line in the kernel's log."""
        compiled = re.compile(pattern)
        end = time.monotonic() + timeout
        while True:
            text = self.log.read_text(errors="replace") if self.log.exists() else ""
            found = compiled.search(text)
            if found:
                return found
            with self.changed:
                if self.ended or time.monotonic() > end:
                    raise GuestError(f"the kernel's log has no {pattern!r}: " + self.ending())
                # a file announces nothing: look again soon
                self.changed.wait(0.05)

    def tell(self, line: str) -> None:
        """Send the agent a line."""
        try:
            with self._write_lock:
                self._shell.sendall(line.encode() + b"\n")
        except OSError as error:
            raise GuestError(f"the guest cannot be told {line[:40]!r}: {self.ending()}") from error

    # -- inside -------------------------------------------------------------------------------------------------------

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._folder / name))
        listener.listen(1)
        return listener

    def _accept(self, listener: socket.socket, end: float) -> socket.socket:
        # QEMU may end at once, for a wrong option or a service that hangs up: then nobody will ever connect
        with listener:
            while time.monotonic() < end and not self.ended:
                listener.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(None)
                    return connection
        raise GuestError("QEMU did not start: " + self.ending())

    def _watch(self) -> None:
        self._process.wait()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            for raw in self._shell.makefile("rb"):
                self._take(raw.decode(errors="replace").rstrip("\r\n"))

    def _take(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        number, _, text = rest.partition(" ")
        with self.changed:
            job = self._jobs.get(int(number)) if number.isdigit() else None
            if line == "H":
                self._ready = True
            elif verb == "O" and job:
                job.lines.append(text)
            elif verb == "X" and job and text.strip().isdigit():
                job.code = int(text)
            elif line:
                self.noise.append(line)
            self.changed.notify_all()

    def ending(self) -> str:
        """What is known about why the guest is not there (any more)."""
        said = ""
        for file in (self._folder / "qemu.log", self.log):
            if file.exists():
                said += "".join(f"\n    | {line}" for line in file.read_text(errors="replace").splitlines()[-12:])
        code = self._process.poll() if self._process else None
        state = "QEMU never started" if not self._process else "still running" if code is None else f"QEMU ended with {code}"
        if code == 124:
            state = f"QEMU was ended after its limit of {self.limit:g} s"
        return state + said


def _remove_left_over() -> None:
    """Remove the folders of guests whose maker was killed and could not."""
    for folder in Path(tempfile.gettempdir()).glob("agl-bench-*-*"):
        maker = folder.name.split("-")[2]
        if maker.isdigit() and not Path("/proc", maker).exists():
            shutil.rmtree(folder, ignore_errors=True)
