"""Programs that use codecs and cameras, for the guests of a few checks: a read-only disk of their own.

They are as large as all else in a guest together, so they are fetched when a check first wants them, and lie on an
image that the guest mounts (`Guest(devices=media_userland.disk(piece))`, then MOUNT_SCRIPT) instead of in its memory.
`media PROGRAM …` in the guest is a chroot with the guest's own /dev, /proc, /sys and /tmp, and all the rest as /guest.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import debian
from .cache import Cache, fingerprint
from .debian import Archive, Found
from .progress import Progress, SetupError
from .userland import LIBRARIES, LOADER, READELF

PACKAGES = ["v4l-utils", "ffmpeg", "gstreamer1.0-tools", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad"]
# The image is written with this machine's own tool.
HOST_PACKAGES = ["erofs-utils", "mmdebstrap", "binutils-aarch64-linux-gnu"]
PROGRAMS = ["v4l2-compliance", "v4l2-ctl", "ffmpeg", "gst-launch-1.0", "gst-inspect-1.0"]
# A guest without KVM takes minutes to look at all plugins there are.
PLUGINS = [
    "coreelements", "video4linux2", "videoparsersbad", "ivfparse", "typefindfunctions", "videoconvertscale", "videorate", "rawparse", "videotestsrc", "app",
]
DEBIAN_PLUGINS = LIBRARIES / "gstreamer-1.0"
MOUNT = "/media"


def find(archive: Archive) -> list[Found]:
    """The packages in the versions that would be extracted."""
    result = []
    for package in PACKAGES:
        versions = [found for found in archive.versions(re.escape(package)) if "~bpo" not in found.version]
        if not versions:
            raise SetupError(f"Debian {debian.RELEASE} has no package {package}", "check the mirror")
        result.append(versions[0])
    return result


def ingredients(found: list[Found]) -> dict[str, str]:
    """What this piece is made from."""
    how = inspect.getsource(sys.modules[__name__]) + inspect.getsource(debian.extract)
    return {**{entry.package: entry.version for entry in found}, "how": how}


def piece(cache: Cache | None = None) -> Path:
    """The folder with the image, made if it is not there."""
    cache = cache or Cache()
    chosen = cache.root / "media-versions.json"
    question = fingerprint({"release": debian.RELEASE, "packages": " ".join(PACKAGES)})
    found = _kept(chosen, question)
    if found and cache.place("media", ingredients(found)).is_dir():
        return cache.place("media", ingredients(found))
    progress = Progress(1)
    with cache.lock(lambda: print("another set-up is at work in the same cache: waiting for it", flush=True)):
        log = cache.root / "media.log"
        log.write_bytes(b"")
        progress.step("programs for codecs and cameras")
        missing = debian.missing(HOST_PACKAGES)
        if missing:
            debian.install(missing, progress, log)
        scratch = cache.root / "tmp/apt"
        scratch.mkdir(parents=True)
        found = find(Archive(scratch, progress, log))
        chosen.write_text(json.dumps({"question": question, "found": [vars(entry) for entry in found]}, indent=1) + "\n")
        return cache.make("media", ingredients(found), lambda work: build(work, progress))


def _kept(chosen: Path, question: str) -> list[Found] | None:
    try:
        kept = json.loads(chosen.read_text())
        return [Found(**entry) for entry in kept["found"]] if kept["question"] == question else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build(work: Path, progress: Progress) -> None:
    """media.erofs: the programs, GStreamer's few plugins, and the libraries of all."""
    log = work / "log"
    root = work / "root"
    progress.note(f"extracting {', '.join(PACKAGES)} for arm64")
    debian.extract(root, "arm64", PACKAGES, progress, log)

    tree = work / "tree"
    for name in ("dev", "proc", "sys", "tmp", "guest", "usr/bin", "plugins", str(LIBRARIES)):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / f"usr/lib/{LOADER}").symlink_to(f"aarch64-linux-gnu/{LOADER}")
    wanted = []
    for name in PROGRAMS:
        wanted.append(_copy(root / "usr/bin" / name, tree / "usr/bin" / name))
    for name in PLUGINS:
        wanted.append(_copy(root / DEBIAN_PLUGINS / f"libgst{name}.so", tree / "plugins" / f"libgst{name}.so"))
    for library in _closure(wanted, root):
        _copy(library, tree / LIBRARIES / library.name)
    progress.note("writing the image")
    progress.run(["mkfs.erofs", "-T0", str(work / "media.erofs"), str(tree)], log)
    progress.run(["rm", "-rf", str(root), str(tree)], log)


def _copy(source: Path, target: Path) -> Path:
    if not source.exists():
        raise SetupError(f"{source.name} is not in the packages", "correct aglbench/media_userland.py")
    shutil.copy2(source.resolve(), target)
    return target


def _closure(programs: list[Path], root: Path) -> list[Path]:
    """The libraries of these programs. Some lie in folders below the usual one, where alternatives would find them."""
    everywhere = {}
    for folder in (root / LIBRARIES, *sorted(path for path in (root / LIBRARIES).iterdir() if path.is_dir())):
        for library in folder.glob("*.so*"):
            everywhere.setdefault(library.name, library)
    found = {LOADER: root / LIBRARIES / LOADER}
    todo = list(programs)
    while todo:
        table = subprocess.run([READELF, "-d", str(todo.pop())], env=dict(os.environ, LC_ALL="C"), capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"\(NEEDED\)\s+Shared library: \[([^]]+)\]", table):
            if name in found:
                continue
            if name not in everywhere:
                raise SetupError(f"{name} is in none of the packages", "add its package to aglbench/media_userland.py")
            found[name] = everywhere[name]
            todo.append(everywhere[name])
    return sorted(found.values())


def disk(folder: Path) -> list[str]:
    """QEMU's words for the disk."""
    return ["-blockdev", f"driver=file,filename={folder / 'media.erofs'},node-name=media,read-only=on", "-device", "virtio-blk-pci,drive=media"]


# In the guest, once: afterwards `media PROGRAM …` runs one of the programs.
MOUNT_SCRIPT = f"""
modprobe -q virtio_blk
mkdir -p {MOUNT} && mount -t erofs -o ro /dev/vda {MOUNT} || exit
for name in dev proc sys tmp; do mount --bind /$name {MOUNT}/$name || exit; done
mount --bind / {MOUNT}/guest || exit
cat > /usr/bin/media <<'END'
#!/bin/sh
export GST_PLUGIN_SYSTEM_PATH=/plugins GST_REGISTRY=/tmp/gst-registry GST_REGISTRY_FORK=no HOME=/tmp XDG_RUNTIME_DIR=/tmp
exec chroot {MOUNT} "$@"
END
chmod +x /usr/bin/media
"""
