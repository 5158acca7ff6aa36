"""What the checks of the SCMI service share: the guest's device tree and modules, and the host's view of the platform."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from . import qemu
from .checks import must, run
from .guest import Guest
from .service import Service
from .setup import pieces

NAME = "org.automotivelinux.Virtio1.Device.guest.scmi"
PATH = "/org/automotivelinux/Virtio1/guests/guest/scmi"
INTERFACE = "org.automotivelinux.Virtio1.Scmi"


def device_tree(work: Path, service: Path, nodes: str, *words: str | Path) -> Path:
    """The tree of QEMU's machine with what the service says, told these words, and the nodes of a test."""
    program, variables = qemu.command(pieces().qemu)
    run(*program, "-machine", f"virt,gic-version=2,dumpdtb={work}/machine.dtb", "-cpu", "cortex-a57", "-m", "256", "-smp", "1",
        "-nodefaults", "-display", "none", "-serial", "null", "-serial", "null", env=dict(os.environ, **variables))
    machine = run("dtc", "-q", "-I", "dtb", "-O", "dts", work / "machine.dtb")
    (work / "guest.dts").write_text(machine + run(service, "dtb-fragment", *words) + nodes)
    run("dtc", "-q", "-I", "dts", "-O", "dtb", "-o", work / "guest.dtb", work / "guest.dts")
    return work / "guest.dtb"


class Host:
    """The host's view of the platform, over D-Bus."""

    def __init__(self, address: str, keeper: Service, second: Callable[[], Guest] | None = None):
        self.words = ["busctl", f"--address={address}"]
        self.keeper = keeper
        self.second = second

    def service(self) -> int | None:
        """The process of the service, below its keeper."""
        pid = self.keeper.process.pid
        children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
        return int(children[0]) if children else None

    def call(self, method: str, *words: str) -> str:
        """Call a method, once the service is on the bus."""
        self.wait()
        return run(*self.words, "call", NAME, PATH, INTERFACE, method, *words)

    def wait(self) -> None:
        """Wait until the service is on the bus: one that was killed comes back."""
        end = time.monotonic() + 30
        words = [*self.words, "get-property", NAME, PATH, INTERFACE, "Agents"]
        while subprocess.run(words, capture_output=True, check=False).returncode != 0:
            must(time.monotonic() < end, "the service is not on the bus")
            time.sleep(0.05)

    def resource(self, kind: str, name: str) -> tuple[str, int]:
        """State and value of a resource."""
        self.wait()
        text = run(*self.words, "get-property", NAME, PATH, INTERFACE, "Resources")
        found = re.search(rf'"{kind}" "{name}" "([^"]*)" (-?\d+) ', text)
        must(found is not None, f"there is no {kind} {name}")
        return found[1], int(found[2])
