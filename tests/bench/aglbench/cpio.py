"""Writing initramfs archives: the "newc" format of cpio, which Linux unpacks one after another from one file."""

import os
import stat
from pathlib import Path


class Archive:
    """An archive in memory. Everything in it belongs to root, and has no time: equal content gives equal bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0
        self._folders: set[str] = set()

    def _entry(self, name: str, mode: int, data: bytes = b"") -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        # magic, then: inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name's size, check
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def folder(self, name: str) -> None:
        """Add a folder and those above it, once."""
        name = name.strip("/")
        if name and name not in self._folders:
            self.folder(os.path.dirname(name))
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        name = name.strip("/")
        self.folder(os.path.dirname(name))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def tree(self, source: Path, name: str) -> None:
        """Add all files, links and folders below `source` as `name`."""
        for base, folders, files in sorted(os.walk(source)):
            inside = os.path.join(name, os.path.relpath(base, source)).removesuffix("/.")
            self.folder(inside)
            for entry in sorted(files + [f for f in folders if os.path.islink(os.path.join(base, f))]):
                self.copy(Path(base) / entry, f"{inside}/{entry}")

    def copy(self, source: Path, name: str) -> None:
        """Add one file or link as it is on the host."""
        if source.is_symlink():
            self.link(name, os.readlink(source))
        else:
            executable = source.stat().st_mode & 0o111
            self.file(name, source.read_bytes(), 0o755 if executable else 0o644)

    def bytes(self) -> bytes:
        """The whole archive, padded so that another one may follow."""
        saved = list(self._parts)
        self._entry("TRAILER!!!", 0)
        data = b"".join(self._parts)
        self._parts = saved
        return data + b"\0" * (-len(data) % 512)
