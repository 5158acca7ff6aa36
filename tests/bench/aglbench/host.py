"""What the layer's packages put on a host: programs, units, policies and users, in the places of the recipe."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LAYER = ROOT / "meta-agl-virtio"
FILES = LAYER / "recipes-virt/agl-virtio/files"
TYPES = ["can", "media", "rpmb", "scmi", "snd", "video"]
PROGRAMS = ["agl-virtiod", "agl-virtioctl", "agl-virtio-keeper", *(f"agl-virtio-{kind}" for kind in TYPES)]
# Where the recipe installs what it does not call by its own name.
INSTALLED = {
    "agl-virtio-sandbox.conf": "usr/lib/systemd/system/agl-virtio-.service.d/sandbox.conf",
    "agl-virtio-can-socketcan.conf": "usr/lib/systemd/system/agl-virtio-can@.service.d/socketcan.conf",
    "agl-virtio-scmi-sysfs.conf": "usr/lib/systemd/system/agl-virtio-scmi@.service.d/sysfs.conf",
    "agl-guest.conf": "usr/lib/systemd/system/agl-guest@.service.d/sandbox.conf",
    "agl-virtio.tmpfiles": "usr/lib/tmpfiles.d/agl-virtio.conf",
    "org.automotivelinux.Virtio1.conf": "usr/share/dbus-1/system.d/org.automotivelinux.Virtio1.conf",
    "50-agl-virtio.rules": "usr/share/polkit-1/rules.d/50-agl-virtio.rules",
}
# Beside the layer's users: AGL's application user, whom polkit's rule knows by a group, and somebody else.
PASSWD = "agl-driver:x:1001:1001::/:/bin/sh\nstranger:x:1002:1002::/:/bin/sh\n"
GROUP = "agl-driver:x:1001:\nstranger:x:1002:\npipewire:x:1008:agl-virtio-snd\n"


def install(source: Path, to: Path, mode: int = 0o644) -> None:
    """A file where a package would put it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)
    to.chmod(mode)


def missing(programs: Path) -> list[Path]:
    """Those of our programs that are not in this folder."""
    return [programs / program for program in PROGRAMS if not (programs / program).exists()]


def bring(programs: Path, root: Path) -> None:
    """Everything into a root file system, or into what lies above one."""
    for program in PROGRAMS:
        install(programs / program, root / "usr/bin" / program, 0o755)
    for unit in [*FILES.glob("*.service"), *FILES.glob("*.socket"), *FILES.glob("*.target")]:
        install(unit, root / "usr/lib/systemd/system" / unit.name)
    for name, place in INSTALLED.items():
        install(FILES / name, root / place)
    policy = "org.automotivelinux.virtio1.policy"
    install(ROOT / "rust-services/service/polkit" / policy, root / "usr/share/polkit-1/actions" / policy)
    (root / "etc/agl-virtio/guests.d").mkdir(parents=True)


def users() -> tuple[str, str]:
    """Lines for /etc/passwd and /etc/group."""
    fields = [user.split(":") for user in (LAYER / "files/agl-virtio-passwd").read_text().split()]
    passwd = "".join(f"{user[0]}:x:{user[2]}:{user[3]}::/:/usr/sbin/nologin\n" for user in fields)
    groups = [line.split(":") for line in (LAYER / "files/agl-virtio-group").read_text().split()]
    members = {"agl-virtio-control": "agl-driver"}
    group = "".join(f"{name}:x:{number}:{members.get(name, '')}\n" for name, _, number, *_ in groups)
    return passwd + PASSWD, group + GROUP
