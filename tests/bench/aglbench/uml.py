"""A user-mode Linux: a kernel with CAN, sound cards, and what systemd wants, as an ordinary process of this machine, for its programs.

Few machines that build have CAN in their kernel, and none that is a container may load it. The root of the user-mode Linux
is the file system of this machine; what is written to /tmp and /run stays inside.
"""

import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import debian
from .cache import Cache
from .debian import Archive, Found
from .progress import Progress, SetupError
from .setup import Versions

BENCH = Path(__file__).resolve().parent.parent
PACKAGES = ["bc", "bison", "can-utils", "flex", "gcc", "iproute2", "libc6-dev", "make", "xz-utils"]


def ingredients(found: Found) -> dict[str, str]:
    """What this piece is made from."""
    how = inspect.getsource(build) + (BENCH / "uml/kernel.cfg").read_text()
    return {found.package: found.version, "how": how}


def build(work: Path, found: Found, archive: Archive, progress: Progress) -> None:
    """The program `linux`."""
    log = work / "log"
    package = archive.download(found, work / "deb")
    progress.run(["dpkg-deb", "-x", str(package), str(work / "deb")], log)
    progress.note("unpacking the source")
    progress.run(["tar", "-xf", str(next((work / "deb/usr/src").glob("linux-source-*.tar.*"))), "-C", str(work)], log)
    source = work / found.package
    env = dict(os.environ, ARCH="um", KBUILD_BUILD_TIMESTAMP="@0", KBUILD_BUILD_USER="agl-virtio", KBUILD_BUILD_HOST="bench")
    env.pop("KCONFIG_CONFIG", None)
    objects = work / "objects"
    objects.mkdir()
    progress.run(["make", "-s", f"O={objects}", "defconfig"], log, cwd=source, env=env)
    progress.run(["scripts/kconfig/merge_config.sh", "-Q", "-O", str(objects), str(objects / ".config"), str(BENCH / "uml/kernel.cfg")],
                 log, cwd=source, env=env)
    progress.note("compiling; this takes some minutes")
    progress.run(["nice", "-n", "5", "make", f"O={objects}", f"-j{os.cpu_count()}", "linux"], log, cwd=source, env=env)
    progress.run(["strip", "-o", str(work / "linux"), str(objects / "linux")], log)
    progress.run(["rm", "-rf", str(source), str(objects), str(work / "deb")], log)


def kernel_program() -> Path:
    """The kernel, built where it is not there yet."""
    cache = Cache()
    versions = Versions.read(cache)
    if not versions:
        raise SetupError(f"the bench is not set up in {cache.root}", "run tests/bench/setup")
    found = versions.kernel
    place = cache.place("uml", ingredients(found))
    missing = debian.missing(PACKAGES)
    if place.is_dir() and not missing:
        return place / "linux"
    progress = Progress(1)
    with cache.lock(lambda: print("another set-up is at work in the same cache: waiting for it", flush=True)):
        log = cache.root / "uml.log"
        if missing:
            debian.install(missing, progress, log)
        progress.step("user-mode Linux")
        archive = Archive(cache.root / "tmp/apt", progress, log)
        cache.make("uml", ingredients(found), lambda work: build(work, found, archive, progress))
    return place / "linux"


def run(script: str, log: Path, *, words: Sequence[str] = (), memory: int = 512, limit: float = 600.0) -> tuple[int, str]:
    """Run a shell script in a user-mode Linux; how it ended and what was said. Paths are those of this machine.

    `words` are further ones for its kernel. The limit is in seconds of this machine.
    """
    # not in /run, which is another one inside
    with tempfile.TemporaryDirectory(prefix="agl-uml-", dir="/var/tmp") as folder:
        file = Path(folder) / "script"
        file.write_text(script)
        return boot(["rw", f"init={BENCH}/uml/init", f"AGL_SCRIPT={file}", *words], log, memory=memory, limit=limit)


def boot(arguments: list[str], log: Path, *, memory: int, limit: float = 600.0,
         root: Sequence[str] = ("rootfstype=hostfs", "rootflags=/")) -> tuple[int, str]:
    """Start a user-mode Linux with these words for its kernel; how what it was started for ended, and what was said.

    Its root is this machine's file system unless `root` says otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="agl-uml-", dir="/var/tmp") as folder:
        words = [
            "setpriv", "--pdeathsig", "TERM", "timeout", "-k", "2", str(int(limit)), str(kernel_program()), f"mem={memory}M",
            *root, *arguments, "con0=fd:0,fd:1", "con=null", "quiet",
        ]
        # its memory is a file: where there is no room for it, it ends
        with log.open("wb") as out:
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False,
                           env=dict(os.environ, TMPDIR=folder))
    said = log.read_text(errors="replace").replace("\r", "")
    ended = re.search(r"^uml: ended with (\d+)$", said, re.MULTILINE)
    return (int(ended[1]) if ended else 255), said


if __name__ == "__main__":
    print(kernel_program())
    sys.exit(0)
