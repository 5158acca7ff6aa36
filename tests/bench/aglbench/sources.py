"""Debian's Linux sources, as much of them as checks of the layer need: Kconfig, headers, build scripts, and what is exported.

A whole source is 1.3 GB, and none of the checks compiles it: of what they leave out, the names of exported symbols stay.
"""

import inspect
import re
import sys
import tarfile
from pathlib import Path

from . import debian, exports
from .cache import Cache
from .progress import Progress, SetupError

# Debian's release that has each series: none of them has all three.
KERNELS = {"6.1": "bookworm", "6.12": "trixie", "7.3": "trixie-backports"}
# What a configuration is worked out from, and what modules outside of the tree are built with, for arm64.
KEPT = re.compile(
    r".*/Kconfig[^/]*|Kconfig|Kbuild|Makefile|arch/[^/]+/Makefile.*|(scripts|include|lib/vdso|tools/include)/.*"
    r"|arch/arm64/(Kbuild|(include|kernel|tools)/.*)|kernel/bounds\.c|kernel/time/timeconst\.bc|kernel/sched/rq-offsets\.c|kernel/.*\.h"
    # what other architectures' list of system calls is compared with
    r"|arch/x86/entry/syscalls/syscall_32\.tbl"
    # a driver that older kernels get as a module
    r"|drivers/net/can/virtio_can\.c"
)


def ingredients(series: str) -> dict[str, str]:
    """What a piece is made from."""
    how = "".join(inspect.getsource(part) for part in (sys.modules[__name__], exports, debian.Archive))
    return {"series": series, "release": KERNELS[series], "how": how}


def source(series: str, cache: Cache) -> Path:
    """The piece of a series: `source`, `exports` (as in Module.symvers) and `version`; fetched if it is not there.

    The caller holds the cache's lock.
    """
    package = f"linux-source-{series}"

    def fetch(work: Path) -> None:
        progress, log = Progress(1), work / "log"
        archive = debian.Archive(work / "apt", progress, log, suites=(KERNELS[series],))
        found = archive.versions(re.escape(package))
        if not found:
            raise SetupError(f"Debian {KERNELS[series]} has no {package}", "use a mirror that carries it")
        progress.note(f"fetching {package} {found[0].version}")
        deb = archive.download(found[0], work / "deb")
        progress.run(["dpkg-deb", "-x", str(deb), str(work / "deb")], log)
        progress.note("unpacking what is needed of it")
        unpack(next((work / "deb/usr/src").glob("linux-source-*.tar.*")), work)
        (work / "version").write_text(found[0].version + "\n")
        progress.run(["rm", "-rf", str(work / "apt"), str(work / "deb")], log)

    return cache.make(f"source-{series}", ingredients(series), fetch)


def unpack(tarball: Path, work: Path) -> None:
    """Read a source's archive once, to `work`/source and `work`/exports."""
    symbols = set()
    with tarfile.open(tarball, "r|*") as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            kept = KEPT.fullmatch(path) and not member.isdir()
            member.name = f"source/{path}"
            if exports.may_be_in(path) and member.isfile():
                text = archive.extractfile(member).read()
                symbols.update(exports.of(text))
                if kept:
                    file = work / member.name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(text)
                    file.chmod(member.mode)
            elif kept:
                archive.extract(member, work)
    (work / "exports").write_text(exports.symvers(symbols))
