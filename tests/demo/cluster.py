# SPDX-License-Identifier: Apache-2.0
"""The guest of the demo: its cards, the services behind them, and what it needs of drivers, programs and clips."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from aglbench import clips, cross, media_userland, modules, scmi
from aglbench.bus import Bus
from aglbench.checks import Skipped
from aglbench.clips import Clip
from aglbench.guest import Guest
from aglbench.service import Service
from cards import camera, codec, rpmb

# An emulated guest on a busy machine may be late by more than the driver's usual 160 ms.
PATIENT = "virtio_snd.pcm_buffer_ms=1200"

TEMPLATE = Path(__file__).resolve().parent / "cluster.toml"

# Each device, its service, and what the bench's QEMU attaches it as.
DEVICES = {
    "cabin": ("snd", "snd"), "platform": ("scmi", "scmi"), "chassis": ("can", "can"), "vault": ("rpmb", "rpmb"),
    "decoder": ("video", "video-decoder"), "encoder": ("video", "video-encoder"), "camera": ("media", "media"),
}


def programs() -> set[str]:
    """The programs of the host that it takes."""
    return {"agl-virtio-keeper", *(f"agl-virtio-{service}" for service, _ in DEVICES.values())}


class Cluster:
    """What the guest is made of. Made once, before it boots.

    folder  of the services' programs
    out     what the demo leaves behind
    work    short folder for sockets and what is built
    say     tells a person what is being done
    """

    def __init__(self, folder: Path, out: Path, work: Path, say: Callable[[str], None]):
        self.folder = folder
        self.out = out
        self.work = work
        self.config = out / "cluster.toml"
        self.config.write_text(TEMPLATE.read_text().replace("@out@", str(out)).replace("@sockets@", str(work)))
        say("programs for codecs and cameras")
        self.disk = media_userland.disk(media_userland.piece())
        say("the drivers that Linux does not have: RPMB, video, camera")
        self.files: dict[str, bytes | Path] = {
            **modules.driver(work, "rpmb"), **modules.driver(work, "video"), **modules.driver(work, "media", camera.DRIVER_WORDS),
        }
        say("the RPMB tool, for arm64")
        self.files |= self.tool(say)
        say("clips, and their frames by the host's software decoders")
        self.clips: dict[str, Clip] = clips.make(work, codec.CLIPS)
        # detail everywhere, and it moves: an encoder has to work for it
        self.raw = clips.raw(work / "raw", codec.RAW, "zone-plate kx2=20 ky2=20 kt=3")
        self.files |= codec.files(self.clips, self.raw)
        self.tree = scmi.device_tree(work, folder / "agl-virtio-scmi", "", "--config", self.config, "--agent", "cluster")

    def tool(self, say: Callable[[str], None]) -> dict[str, Path]:
        """The guest's RPMB tool, where this machine can build it."""
        name = "agl-virtio-rpmb-tool"
        try:
            built = cross.build("-p", "agl-virtio-rpmb", "--no-default-features", "--bin", name)
        except Skipped as why:
            say(f"not built: {why}")
            return {}
        return {rpmb.TOOL: cross.strip(built / name, self.work / name)}

    @contextlib.contextmanager
    def running(self, bus: Bus) -> Iterator[Guest]:
        """Its services on the bus, each under a keeper, and the guest itself."""
        with contextlib.ExitStack() as stack:
            vhost = []
            for device, (service, kind) in DEVICES.items():
                socket = self.work / f"{device}.sock"
                words = [self.folder / "agl-virtio-keeper", "--socket", "SOCKET", "--", self.folder / f"agl-virtio-{service}",
                         "--config", self.config, "--device", device, "--bus", bus.address]
                stack.enter_context(Service(words, socket, self.out / f"{device}.log"))
                vhost.append((kind, socket))
            guest = Guest(vhost=vhost, devices=["-dtb", str(self.tree), *self.disk], files=self.files, memory=512, limit=1800,
                          log=self.out / "guest-kernel.log", append=PATIENT)
            yield stack.enter_context(guest)
