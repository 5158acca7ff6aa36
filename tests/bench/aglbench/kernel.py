"""The guest's kernel, built from Debian's source package with a small configuration and the Yocto layer's fragments.

A distribution's ready kernel lacks several of the virtio drivers; and testing the very fragments and patches that the
layer ships shows that they do what they say.
"""

import inspect
import os
import re
import sys
from pathlib import Path

from .cpio import Archive as Cpio
from .debian import Archive, Found
from .progress import Progress, SetupError

BENCH = Path(__file__).resolve().parent.parent
FRAGMENTS = BENCH.parent.parent / "meta-agl-virtio/recipes-kernel/linux/files"
CROSS = "aarch64-linux-gnu-"
SERIES = (7, 3)
# What the guest's programs take from the kernel's own tests.
SELFTESTS = ("alsa", "net/can")


def find(archive: Archive) -> Found:
    """The kernel series the bench is written for; if it has gone from the archive, the next newer one."""
    series = {}
    for found in archive.versions(r"linux-source-[0-9]+\.[0-9]+"):
        number = tuple(int(part) for part in re.findall(r"\d+", found.package)[:2])
        if number >= SERIES:
            series.setdefault(number, found)
    if not series:
        raise SetupError(
            f"no linux-source-{SERIES[0]}.{SERIES[1]} or later in the archive",
            "use a mirror that carries the backports of the release named in aglbench/debian.py",
        )
    return series[min(series)]


def fragments() -> list[Path]:
    """The configuration in the order it is merged: the bench's machine first, then one fragment per device."""
    return [BENCH / "kernel/base.cfg", *sorted(FRAGMENTS.glob("virtio-*.cfg"))]


def patches() -> list[Path]:
    """The layer's changes to the guest's drivers."""
    return sorted(FRAGMENTS.glob("*.patch"))


def ingredients(found: Found) -> dict[str, str]:
    """What this piece is made from."""
    texts = {file.name: file.read_text() for file in [*fragments(), *patches()]}
    return {found.package: found.version, "how": inspect.getsource(sys.modules[__name__]), **texts}


def build(work: Path, found: Found, archive: Archive, progress: Progress) -> None:
    """All from one source tree: Image, modules.cpio, config, the self-tests' sources, and `build`.

    `build` is what a driver outside the kernel's tree is built against: make -C …/build M=… ARCH=arm64 CROSS_COMPILE=….
    """
    log = work / "log"
    progress.note(f"fetching {found.package} {found.version}")
    package = archive.download(found, work / "deb")
    progress.run(["dpkg-deb", "-x", str(package), str(work / "deb")], log)
    package.unlink()
    progress.note("unpacking the source")
    tarball = next((work / "deb/usr/src").glob("linux-source-*.tar.*"))
    progress.run(["tar", "-xf", str(tarball), "-C", str(work)], log)
    source = work / found.package
    for patch in patches():
        progress.note(f"applying {patch.name}")
        progress.run(["patch", "-p1", "--forward", "--fuzz=0", "-i", str(patch)], log, cwd=source)
    objects = work / "objects"
    objects.mkdir()

    env = dict(os.environ, ARCH="arm64", CROSS_COMPILE=CROSS, KBUILD_BUILD_TIMESTAMP="@0", KBUILD_BUILD_USER="agl-virtio",
               KBUILD_BUILD_HOST="bench")
    env.pop("KCONFIG_CONFIG", None)
    progress.note(f"merging {len(fragments())} configuration fragments")
    progress.run(
        ["scripts/kconfig/merge_config.sh", "-n", "-Q", "-O", str(objects), *map(str, fragments())],
        log, cwd=source, env=env,
    )
    check_config((objects / ".config").read_text())

    progress.note("compiling; this takes some minutes")
    jobs = f"-j{os.cpu_count()}"
    make = ["nice", "-n", "5", "make", f"O={objects}", jobs]
    progress.run([*make, "Image", "modules"], log, cwd=source, env=env)
    progress.note("collecting image, modules and self-tests")
    progress.run(
        [*make, "modules_install", f"INSTALL_MOD_PATH={work / 'modules'}", "INSTALL_MOD_STRIP=1"], log, cwd=source, env=env
    )
    # the compiler's names are equal to keep the helper programs as they are, built for this machine
    progress.run(
        ["sh", str(source / "scripts/package/install-extmod-build"), str(work / "build")],
        log, cwd=objects, env=dict(env, srctree=str(source), SRCARCH="arm64", CC="gcc", HOSTCC="gcc", MAKE="make"),
    )
    (objects / "arch/arm64/boot/Image").rename(work / "Image")
    (objects / ".config").rename(work / "config")
    modules = Cpio()
    modules.tree(work / "modules/lib/modules", "usr/lib/modules")
    (work / "modules.cpio").write_bytes(modules.bytes())

    selftests = work / "selftests"
    selftests.mkdir()
    for folder in SELFTESTS:
        (selftests / folder).parent.mkdir(exist_ok=True)
        (source / "tools/testing/selftests" / folder).rename(selftests / folder)
    for header in (source / "tools/testing/selftests").glob("kselftest*.h"):
        header.rename(selftests / header.name)
    # 2 GB that nothing needs any more
    progress.run(["rm", "-rf", str(source), str(objects), str(work / "modules"), str(work / "deb")], log)


def check_config(config: str) -> None:
    """Fail if merging lost a line of any fragment: a dependency is missing or a symbol has gone."""
    have = set(config.splitlines())
    lost = []
    for file in fragments():
        for line in file.read_text().splitlines():
            wanted = line.strip()
            unset = re.fullmatch(r"# (CONFIG_\w+) is not set", wanted)
            if unset:
                ok = not any(entry.startswith(f"{unset[1]}=") for entry in have)
            else:
                ok = not wanted.startswith("CONFIG_") or wanted in have
            if not ok:
                lost.append(f"{file.name}: {wanted}")
    if lost:
        raise SetupError(
            "these lines did not survive in the kernel's configuration:\n    " + "\n    ".join(lost),
            "add what they depend on to the same fragment, or remove them if this kernel no longer has them",
        )
