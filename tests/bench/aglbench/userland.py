"""The guest's programs: chosen ones of Debian's arm64 packages with the libraries they load, as one archive.

Nothing foreign is run: packages are unpacked, and the libraries found by reading the programs' own tables.
The kernel's self-tests are compiled here too: those of ALSA link with the guest's libasound.
"""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from . import debian
from .cpio import Archive as Cpio
from .debian import Archive, Found
from .progress import Progress, SetupError

PACKAGES = [
    "busybox-static", "alsa-utils", "libasound2-data", "libasound2-dev", "coreutils", "can-utils", "iproute2", "mmc-utils",
    "dropbear-bin",
]

# What a guest may run, apart from busybox's own commands.
PROGRAMS = [
    "bin/busybox", "bin/aplay", "bin/arecord", "bin/amixer", "bin/speaker-test", "bin/stdbuf", "bin/mmc", "bin/ip",
    "sbin/dropbear",
    *(f"bin/{name}" for name in (
        "candump", "cansend", "cangen", "cansequence", "canbusload", "isotpsend", "isotprecv", "j1939cat", "j1939acd",
    )),
]
# stdbuf preloads its library: no program asks for it.
DATA = ["usr/share/alsa", "usr/libexec/coreutils"]

LIBRARIES = Path("usr/lib/aarch64-linux-gnu")
LOADER = "ld-linux-aarch64.so.1"
READELF = "aarch64-linux-gnu-readelf"
GCC = "aarch64-linux-gnu-gcc"


def find(archive: Archive) -> list[Found]:
    """The packages in the versions that would be extracted."""
    result = []
    for package in PACKAGES:
        versions = archive.versions(re.escape(package))
        if not versions:
            raise SetupError(f"Debian {debian.RELEASE} has no package {package}", "check the mirror")
        # backports are not among the lines that `build` gives to mmdebstrap
        result.append(next((found for found in versions if "~bpo" not in found.version), versions[0]))
    return result


def ingredients(found: list[Found], kernel_piece: Path) -> dict[str, str]:
    """What this piece is made from."""
    versions = {entry.package: entry.version for entry in found}
    how = inspect.getsource(sys.modules[__name__]) + inspect.getsource(debian.extract)
    return {**versions, "kernel": kernel_piece.name, "how": how}


def build(work: Path, kernel_piece: Path, progress: Progress) -> None:
    """userland.cpio, ready to be unpacked by the kernel."""
    log = work / "log"
    root = work / "root"
    progress.note(f"extracting {', '.join(PACKAGES)} for arm64")
    debian.extract(root, "arm64", PACKAGES, progress, log)
    # packages still speak of /lib and /bin
    for name in ("bin", "sbin", "lib"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")

    tree = Cpio()
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "share", "etc"):
        tree.folder(name)
    for name in ("bin", "sbin", "lib"):
        tree.link(name, f"usr/{name}")

    programs = [root / "usr" / name for name in PROGRAMS]
    for program in programs:
        if not program.exists():
            raise SetupError(f"{program.name} is not in the guest's packages", "correct aglbench/userland.py")
        # arecord is a link to aplay: as a file of its own it works the same
        tree.file(f"usr/bin/{program.name}", program.resolve().read_bytes(), 0o755)
    tree.link("usr/bin/sh", "busybox")
    for folder in DATA:
        tree.tree(root / folder, folder)

    progress.note("compiling the kernel's self-tests")
    selftests = work / "selftests"
    selftests.mkdir()
    compile_alsa_selftests(kernel_piece / "selftests", root, selftests / "alsa", progress, log)
    compile_can_selftests(kernel_piece / "selftests", selftests / "net/can", progress, log)
    tree.tree(selftests, "selftests")

    for library in closure([*programs, *selftests.glob("alsa/*-test"), selftests / "alsa/libatest.so"], root):
        tree.file(f"{LIBRARIES}/{library.name}", library.resolve().read_bytes(), 0o755)
    tree.link(f"usr/lib/{LOADER}", f"aarch64-linux-gnu/{LOADER}")

    (work / "userland.cpio").write_bytes(tree.bytes())
    progress.run(["rm", "-rf", str(root), str(selftests)], log)


def compile_alsa_selftests(source: Path, root: Path, target: Path, progress: Progress, log: Path) -> None:
    """pcm-test and mixer-test with their own small library, as the kernel's makefile would build them for itself."""
    alsa = source / "alsa"
    target.mkdir()
    compiler = [
        GCC, "-O2", f"-I{source}", f"-I{root}/usr/include", f"-L{root}/{LIBRARIES}", f"-L{target}",
        # libasound wants a newer C library than the compiler's; the guest has it
        "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined",
    ]
    progress.run([*compiler, "-shared", "-fPIC", str(alsa / "conf.c"), "-lasound", "-o", str(target / "libatest.so")], log)
    for test in ("pcm-test", "mixer-test"):
        progress.run([*compiler, str(alsa / f"{test}.c"), "-latest", "-lasound", "-lpthread", "-o", str(target / test)], log)
    progress.run(["cp", "-r", str(alsa / "pcm-test.conf"), str(alsa / "conf.d"), str(target)], log)


def compile_can_selftests(source: Path, target: Path, progress: Progress, log: Path) -> None:
    """The programs alone: their scripts ask for bash. Static, because they need nothing of the guest."""
    target.mkdir(parents=True)
    for test in sorted((source / "net/can").glob("*.c")):
        progress.run([GCC, "-O2", "-static", f"-I{source}", str(test), "-o", str(target / test.stem)], log)


def closure(programs: list[Path], root: Path) -> list[Path]:
    """All libraries that these programs load, and those that the libraries load."""
    found: dict[str, Path] = {LOADER: root / LIBRARIES / LOADER}
    todo = list(programs)
    env = dict(os.environ, LC_ALL="C")
    while todo:
        table = subprocess.run(
            [READELF, "-d", str(todo.pop())], env=env, capture_output=True, text=True, check=True
        ).stdout
        for name in re.findall(r"\(NEEDED\)\s+Shared library: \[([^]]+)\]", table):
            if name in found or name == "libatest.so":
                continue
            library = root / LIBRARIES / name
            if not library.exists():
                raise SetupError(f"{name} is in none of the guest's packages", "add its package to aglbench/userland.py")
            found[name] = library
            todo.append(library)
    return sorted(found.values())
