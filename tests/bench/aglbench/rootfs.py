"""A root file system of this machine's own packages, on a disk that the kernel checks block by block while it reads (dm-verity).

The disk is made as `kas/feature/read-only.yml` has an image made: ext4, and behind it, without a superblock, the tree of hashes.
"""

import os
import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .checks import must, run

BLOCK = 4096
# What no program reads.
LEFT_OUT = re.compile(r"/usr/share/(doc|man|info|locale|icons|iso-codes|lintian|bash-completion)/|\.mo$")
# Made when packages were installed: of the machine, and no package's own.
MADE = ["etc/ld.so.cache", "etc/nsswitch.conf", "etc/pam.d", "etc/environment"]
EMPTY = ["dev", "proc", "sys", "run", "tmp", "var", "root", "agl"]


def _packages(names: list[str]) -> list[str]:
    """These packages and all that they depend on, as they are installed here."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    said = run("apt-cache", "depends", "--recurse", "--installed", *(f"--no-{kind}" for kind in kinds), *names)
    found = sorted({line for line in said.splitlines() if line[:1].isalnum()})
    installed = run("dpkg-query", "-W", "-f", "${Package} ${binary:Package} ${db:Status-Status}\n")
    real = {words[0]: words[1] for words in (line.split() for line in installed.splitlines()) if words[2] == "installed"}
    essential = run("dpkg-query", "-W", "-f", "${binary:Package} ${Essential}\n")
    return sorted({real[name.split(":")[0]] for name in found if name.split(":")[0] in real}
                  | {line.split()[0] for line in essential.splitlines() if line.endswith(" yes")})


def _placed(path: str) -> str:
    """Where a path of a package's list is: /bin and its like are links."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _files(names: list[str]) -> list[str]:
    """What these packages have installed, folders and links included."""
    said = run("dpkg-query", "-L", *_packages(names))
    paths = {_placed(line) for line in said.splitlines() if line.startswith("/") and not LEFT_OUT.search(line)}
    paths |= {f"/{name}" for name in ("bin", "sbin", "lib", "lib64")}
    skipped = ("/var/", "/run/", "/dev/", "/boot/", "/tmp/")
    return sorted(path for path in paths if path not in ("/", "/.") and os.path.lexists(path) and not f"{path}/".startswith(skipped))


def copy(names: list[str], root: Path, passwd: str, group: str) -> None:
    """The root file system, with this machine's users, who have no passwords, and these."""
    listed = "\0".join(path.removeprefix("/") for path in _files(names))
    packed = ["tar", "-C", "/", "--no-recursion", "--null", "-T", "-", "-cf", "-"]
    with subprocess.Popen(packed, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pack:
        with subprocess.Popen(["tar", "-C", root, "-xpf", "-"], stdin=pack.stdout) as unpack:
            pack.stdin.write(listed.encode())
            pack.stdin.close()
        must(unpack.returncode == 0 and pack.wait() == 0, "the root file system could not be copied")
    run("cp", "-a", "--parents", *(name for name in MADE if Path("/", name).exists()), root, cwd="/")
    for name in EMPTY:
        (root / name).mkdir(exist_ok=True)
    users = "".join(re.sub(r"^([^:]+):[^:]*:", r"\1:*:", line + "\n") for line in (Path("/etc/passwd").read_text() + passwd).splitlines())
    (root / "etc/passwd").write_text(users)
    (root / "etc/group").write_text(Path("/etc/group").read_text() + group)
    (root / "etc/machine-id").write_text("000000000000000000000000000a61f0\n")
    (root / "etc/hostname").write_text("host\n")


def disk(root: Path, to: Path, spare: int) -> None:
    """An ext4 disk with what is in a folder, and so many bytes free."""
    used = int(run("du", "-s", "--block-size=1", "--apparent-size", root).split()[0]) + BLOCK * len(list(root.rglob("*")))
    run("mke2fs", "-q", "-t", "ext4", "-b", BLOCK, "-m", 0, "-d", root, to, f"{(used * 11 // 10 + spare) // 1024}k")


@dataclass
class Verity:
    """What the kernel has to be told of a disk with a tree of hashes."""

    blocks: int
    root_hash: str
    salt: str

    def words(self, device: str) -> str:
        """The word for the kernel's command line, as docs/board.md says it."""
        sectors = self.blocks * BLOCK // 512
        table = f"{device} {device} {BLOCK} {BLOCK} {self.blocks} {self.blocks} sha256 {self.root_hash} {self.salt}"
        return f'dm-mod.create="root,,,ro,0 {sectors} verity 1 {table}"'


def add_hashes(image: Path) -> Verity:
    """Lay the tree of hashes behind a disk's file system."""
    blocks, rest = divmod(image.stat().st_size, BLOCK)
    must(rest == 0, f"{image} is not a whole number of blocks")
    salt = secrets.token_hex(32)
    said = run("veritysetup", "format", "--no-superblock", f"--salt={salt}", f"--data-blocks={blocks}", f"--data-block-size={BLOCK}",
               f"--hash-block-size={BLOCK}", f"--hash-offset={blocks * BLOCK}", image, image)
    return Verity(blocks, re.search(r"^Root hash:\s*(\w+)$", said, re.MULTILINE)[1], salt)
