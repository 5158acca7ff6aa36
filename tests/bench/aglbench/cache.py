"""Where built pieces are kept: outside the checkout, each in a folder named after what it was made from.

A piece is built in a temporary folder and renamed into place when it is whole, so a folder that exists is complete.
A changed input gives another name, so a stale piece is never used.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .progress import SetupError


def cache_root() -> Path:
    """The folder of the cache: $AGL_VIRTIO_CACHE, or agl-virtio in the user's cache folder."""
    own = os.environ.get("AGL_VIRTIO_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agl-virtio"


def fingerprint(ingredients: dict[str, str]) -> str:
    """The hash that names a piece. Ingredients are versions and texts, never times or paths."""
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Cache:
    """The folder with all pieces."""

    def __init__(self, root: Path | None = None):
        self.root = root or cache_root()

    def place(self, name: str, ingredients: dict[str, str]) -> Path:
        """Where the piece made of these ingredients is, or would be."""
        return self.root / f"{name}-{fingerprint(ingredients)}"

    def make(self, name: str, ingredients: dict[str, str], build: Callable[[Path], None]) -> Path:
        """Build a piece unless it is there. The caller holds the lock."""
        place = self.place(name, ingredients)
        if place.is_dir():
            return place
        work = self.root / "tmp" / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        build(work)
        (work / "made-from.json").write_text(json.dumps(ingredients, indent=1, sort_keys=True) + "\n")
        work.rename(place)
        return place

    def prune(self, keep: list[Path]) -> list[Path]:
        """Remove every piece that is not in `keep`; returns what went. The caller holds the lock."""
        gone = []
        for place in sorted(self.root.iterdir()):
            if place.is_dir() and (place / "made-from.json").exists() and place not in keep:
                shutil.rmtree(place)
                gone.append(place)
        return gone

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other set-ups out. Calls `waiting` once if another one is at work."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"cannot make the cache folder: {error}", "set AGL_VIRTIO_CACHE to a folder you can write") from error
        with (self.root / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            # whatever lies here was left by a set-up that was killed: nobody else holds the lock
            shutil.rmtree(self.root / "tmp", ignore_errors=True)
            yield
