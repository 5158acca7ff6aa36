"""Kernel modules for the bench's guest, built against its kernel."""

import shutil
from pathlib import Path

from .checks import run
from .setup import pieces

DRIVERS = Path(__file__).resolve().parents[3] / "meta-agl-virtio/recipes-kernel"


def build(work: Path, source: Path, *words: str) -> dict[str, Path]:
    """The modules of a folder, by file name; built in a copy below `work`. The words go to make."""
    folder = work / source.parent.name / source.name
    shutil.copytree(source, folder)
    run("make", "-s", "-C", pieces().kernel / "build", f"M={folder}", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", *words, "modules")
    return {module.name: module for module in folder.glob("*.ko")}


def driver(work: Path, device: str, *words: str) -> dict[str, Path]:
    """A driver of the layer: `can`, `media`, `rpmb`, `video`."""
    return build(work, DRIVERS / f"virtio-{device}/files", *words)
