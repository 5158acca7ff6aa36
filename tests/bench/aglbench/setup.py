"""Sets up everything a guest is made of, and says where it is.

A warm run reads a few files and touches no network. Versions are looked up once and then kept, until --update.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import debian, kernel, qemu, userland
from .cache import Cache, fingerprint
from .debian import Found
from .progress import Progress, SetupError

# Of the machine's own release: the cross compiler, what the kernel's makefiles call, and the extractor.
HOST_PACKAGES = [
    "bc", "binutils", "bison", "ca-certificates", "debian-archive-keyring", "flex", "gcc", "gcc-aarch64-linux-gnu",
    "kmod", "libc6-dev", "libc6-dev-arm64-cross", "libelf-dev", "libssl-dev", "make", "mmdebstrap", "patch", "perl", "xz-utils",
]


@dataclass(frozen=True)
class Pieces:
    """Where the pieces of a guest are."""

    qemu: Path
    kernel: Path
    userland: Path

    def all(self) -> list[Path]:
        """Every piece."""
        return [self.qemu, self.kernel, self.userland]

    def complete(self) -> bool:
        """Whether all of them have been built."""
        return all(piece.is_dir() for piece in self.all())


@dataclass(frozen=True)
class Versions:
    """Which packages of the archive the pieces are made of."""

    qemu: Found
    kernel: Found
    userland: list[Found]

    # A version is looked up again when what is asked for has changed.
    QUESTION = fingerprint({
        "release": debian.RELEASE, "qemu": str(qemu.OLDEST), "kernel": str(kernel.SERIES),
        "userland": " ".join(userland.PACKAGES),
    })

    # Checkouts that ask for other packages share a cache, and each keeps its own answer.
    FILE = f"versions-{QUESTION}.json"

    @classmethod
    def read(cls, cache: Cache) -> "Versions | None":
        """The versions chosen by an earlier run that asked for the same."""
        try:
            kept = json.loads((cache.root / cls.FILE).read_text())
            return cls(Found(**kept["qemu"]), Found(**kept["kernel"]), [Found(**entry) for entry in kept["userland"]])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, cache: Cache) -> None:
        """Keep them for the next run."""
        kept = {
            "qemu": vars(self.qemu), "kernel": vars(self.kernel),
            "userland": [vars(entry) for entry in self.userland],
        }
        new = cache.root / f"{self.FILE}.new"
        new.write_text(json.dumps(kept, indent=1) + "\n")
        new.rename(cache.root / self.FILE)

    def pieces(self, cache: Cache) -> Pieces:
        """Where the pieces made of these versions are, or would be."""
        kernel_place = cache.place("kernel", kernel.ingredients(self.kernel))
        return Pieces(
            qemu=cache.place("qemu", qemu.ingredients(self.qemu)),
            kernel=kernel_place,
            userland=cache.place("userland", userland.ingredients(self.userland, kernel_place)),
        )


def pieces(cache: Cache | None = None) -> Pieces:
    """The pieces for a test to use; fails if they have not been set up."""
    cache = cache or Cache()
    versions = Versions.read(cache)
    found = versions.pieces(cache) if versions else None
    if not found or not found.complete():
        raise SetupError(f"the bench is not set up in {cache.root}", "run tests/bench/setup")
    return found


def set_up(cache: Cache, *, update: bool = False) -> Pieces:
    """Build whatever is not there."""
    versions = None if update else Versions.read(cache)
    missing = debian.missing(HOST_PACKAGES)
    if versions and not missing and versions.pieces(cache).complete():
        return versions.pieces(cache)

    progress = Progress(5)
    began = time.monotonic()
    with cache.lock(lambda: print("another set-up is at work in the same cache: waiting for it", flush=True)):
        log = cache.root / "setup.log"
        log.write_bytes(b"")
        scratch = cache.root / "tmp/apt"

        progress.step("packages of this machine" + (f": {' '.join(missing)}" if missing else ""))
        if missing:
            debian.install(missing, progress, log)

        # the other set-up, if there was one, may have done it all
        versions = None if update else Versions.read(cache)
        if versions and versions.pieces(cache).complete():
            return versions.pieces(cache)

        progress.step(f"package lists of Debian {debian.RELEASE} and its backports")
        scratch.mkdir(parents=True)
        archive = debian.Archive(scratch, progress, log)
        newest = Versions(qemu.find(archive), kernel.find(archive), userland.find(archive))
        # a package that was chosen earlier may have left the archive, so what must be built is built of the newest
        versions = newest
        versions.write(cache)
        progress.note(f"QEMU {versions.qemu.version}, {versions.kernel.package} {versions.kernel.version}")

        progress.step("QEMU")
        cache.make("qemu", qemu.ingredients(versions.qemu), lambda work: qemu.build(work, versions.qemu, progress))

        progress.step("guest kernel")
        kernel_piece = cache.make(
            "kernel", kernel.ingredients(versions.kernel),
            lambda work: kernel.build(work, versions.kernel, archive, progress),
        )

        progress.step("guest programs")
        cache.make(
            "userland", userland.ingredients(versions.userland, kernel_piece),
            lambda work: userland.build(work, kernel_piece, progress),
        )
    seconds = int(time.monotonic() - began)
    print(f"the bench is set up in {cache.root} ({seconds // 60} min {seconds % 60} s)", flush=True)
    return versions.pieces(cache)


def main() -> int:
    """The command `setup`."""
    parser = argparse.ArgumentParser(prog="setup", description="Set up the guest bench.")
    parser.add_argument("--update", action="store_true", help="look for newer versions of QEMU, kernel and programs")
    parser.add_argument("--prune", action="store_true", help="then remove pieces in the cache that are not used any more")
    parser.add_argument("--where", action="store_true", help="say where the pieces are, as JSON, and build nothing")
    arguments = parser.parse_args()
    cache = Cache()
    try:
        if debian.missing(["dpkg"]) or debian_arch() != "amd64":
            raise SetupError("the bench needs a Debian machine of architecture amd64", "run it on such a machine or container")
        found = pieces(cache) if arguments.where else set_up(cache, update=arguments.update)
        if arguments.where:
            print(json.dumps({name: str(path) for name, path in vars(found).items()}, indent=1))
        if arguments.prune:
            with cache.lock(lambda: None):
                for gone in cache.prune([*found.all(), *cache.root.glob("peer-*"), *cache.root.glob("uml-*"), *cache.root.glob("media-*")]):
                    print(f"removed {gone}")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        if error.remedy:
            print(f"setup: remedy: {error.remedy}", file=sys.stderr)
        return 69  # EX_UNAVAILABLE
    except KeyboardInterrupt:
        print("setup: stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def debian_arch() -> str:
    """The architecture of this machine's packages."""
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
