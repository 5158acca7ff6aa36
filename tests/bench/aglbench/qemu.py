"""The VMM: a newer QEMU than the machine's own release has, in a folder of its own.

Debian 12's QEMU has no vhost-user sound or SCMI front end. The newer one is built against a newer C library, so it
is started through that library's own loader; nothing is installed and no chroot is needed.
"""

import inspect
import sys
from pathlib import Path

from . import debian
from .debian import Archive, Found
from .progress import Progress, SetupError

OLDEST = (11, 1)


def find(archive: Archive) -> Found:
    """The newest QEMU for arm64 guests."""
    for found in archive.versions("qemu-system-arm"):
        number = found.version.split(":")[-1].split("+")[0]
        if tuple(int(part) for part in number.split(".")[:2]) >= OLDEST:
            return found
    raise SetupError(
        f"Debian {debian.RELEASE} and its backports have no QEMU {OLDEST[0]}.{OLDEST[1]} or later",
        "use a mirror that carries the backports; older ones cannot create the devices the bench tests",
    )


def ingredients(found: Found) -> dict[str, str]:
    """What this piece is made from."""
    how = inspect.getsource(sys.modules[__name__]) + inspect.getsource(debian.extract)
    return {"qemu-system-arm": found.version, "how": how}


def build(work: Path, found: Found, progress: Progress) -> None:
    """Extract QEMU and the libraries it needs."""
    # its data, firmware and common parts must be of the same version, not of the release's older one
    packages = [f"{name}/{debian.RELEASE}-backports" for name in ("qemu-system-arm", "qemu-system-common", "qemu-system-data")]
    debian.extract(work / "root", "amd64", packages, progress, work / "log", backports=True)
    command(work)


def command(piece: Path) -> tuple[list[str], dict[str, str]]:
    """How to start it: the first words of the command, and variables that must be in its environment."""
    root = piece / "root"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    program = root / "usr/bin/qemu-system-aarch64"
    for file in (loader, program):
        if not file.exists():
            raise SetupError(f"{file} is not there", f"remove {piece} and run setup again")
    words = [str(loader), "--library-path", str(libraries), str(program), "-L", str(root / "usr/share/qemu")]
    return words, {"QEMU_MODULE_DIR": str(libraries / "qemu")}
