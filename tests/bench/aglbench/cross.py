"""Our own programs for the guest: built for arm64, and linked statically, so that they need nothing of it."""

import os
import shutil
import subprocess
from pathlib import Path

from .checks import Skipped, run

SERVICES = Path(__file__).resolve().parents[3] / "rust-services"
TARGET = "aarch64-unknown-linux-gnu"


def build(*what: str) -> Path:
    """Build what `cargo build` takes these arguments for; the folder with the programs."""
    require_standard_library()
    env = dict(os.environ, CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="aarch64-linux-gnu-gcc",
               CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static")
    run("nice", "cargo", "build", "--locked", "-q", f"--manifest-path={SERVICES / 'Cargo.toml'}", f"--target={TARGET}", *what, env=env)
    return Path(os.environ.get("CARGO_TARGET_DIR", SERVICES / "target")) / TARGET / "debug"


def strip(program: Path, to: Path) -> Path:
    """A copy as small as it can be: all of it is in the guest's memory."""
    run("aarch64-linux-gnu-strip", "-o", to, program)
    return to


def require_standard_library() -> None:
    """Rust's standard library for the guest. Not every Rust can get it: then the check says so and is left out."""
    if any(Path(run("rustc", "--print=target-libdir", f"--target={TARGET}").strip()).glob("libstd-*")):
        return
    if not shutil.which("rustup"):
        raise Skipped(f"this machine's Rust has no standard library for {TARGET}, and there is no rustup to get it")
    added = subprocess.run(["rustup", "target", "add", TARGET], capture_output=True, text=True, check=False)
    if added.returncode != 0:
        raise Skipped(f"Rust's standard library for {TARGET} cannot be had: {added.stderr.strip()[-300:]}")
