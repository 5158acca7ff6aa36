# SPDX-License-Identifier: Apache-2.0
"""Video: a clip is decoded in the guest, by the host's codec, and each frame compared with the host's own decoder."""

import re

from aglbench import clips
from aglbench.clips import Clip, Part, Recipe
from pictures import dimensions, png
from stage import Card, Seen, Stage

CLIPS = [Recipe("h264", "h264", [Part(320, 240)]), Recipe("h265", "h265", [Part(320, 240)])]
# Where the guest's programs find them.
FOLDER = "clips"
# This one is shown.
FRAME = 17
PICTURE = "6-decoded.png"


def compared(found: list[str], wanted: list[str]) -> Seen:
    """Checksums of the guest's frames beside those of the host's."""
    same = sum(here == there for here, there in zip(found, wanted, strict=False))
    if found == wanted and wanted:
        return True, f"{same} frames, all checksums as by the host's software decoder"
    return False, f"{len(found)} frames of {len(wanted)}, {same} of them the same"


class Codec(Card):
    """The decoder."""

    kind = "video"

    def __init__(self, stage: Stage, made: dict[str, Clip]):
        super().__init__(stage)
        self.device = stage.proxy("decoder")
        self.clips = made

    def sees_the_decoder(self) -> Seen:
        # a busy machine must not make the driver give up on a device that is merely slow
        self.guest.run("modprobe videobuf2-dma-sg; modprobe videobuf2-v4l2; insmod /virtio_video.ko timeout_ms=60000")
        node = self.guest.run("basename $(dirname $(grep -l virtio-video-decoder /sys/class/video4linux/*/name))").text.strip()
        text = self.guest.run(f"media v4l2-ctl -d /dev/{node} --list-formats-out").text
        formats = re.findall(r"'(\w{4})'", text)
        return {"H264", "HEVC"} <= set(formats), f"/dev/{node}: {' '.join(formats) or text}"

    def decoded(self, name: str) -> tuple[bytes, Seen]:
        """What GStreamer makes of a clip in the guest."""
        clip = self.clips[name]
        self.guest.run(f"media gst-launch-1.0 -q filesrc location=/guest/{FOLDER}/{name}.{clip.suffix} ! {clip.codec}parse ! v4l2{clip.codec}dec ! "
                       "video/x-raw,format=NV12 ! videoconvert ! video/x-raw,format=I420 ! filesink location=/tmp/decoded", timeout=120)
        frames = self.stage.fetch("/tmp/decoded")
        return frames, compared(clips.frame_hashes(frames, clip.parts), clip.hashes)

    def decodes_h264(self) -> Seen:
        frames, seen = self.decoded("h264")
        part = self.clips["h264"].parts[0]
        size = clips.frame_size(part.width, part.height)
        target = self.stage.out / PICTURE
        png(frames[FRAME * size:(FRAME + 1) * size], ("i420", part.width, part.height), target)
        holds = seen[0] and dimensions(target) == (part.width, part.height)
        return holds, f"v4l2h264dec: {seen[1]}; frame {FRAME} is {PICTURE}"

    def decodes_hevc(self) -> Seen:
        seen = self.decoded("h265")[1]
        return seen[0], f"v4l2h265dec: {seen[1]}"

    steps = (
        ("the guest sees the decoder", sees_the_decoder),
        ("a clip in H.264 is decoded", decodes_h264),
        ("a clip in HEVC is decoded", decodes_hevc),
    )


def files(made: dict[str, Clip]) -> dict[str, bytes]:
    """The clips, for the guest."""
    return {f"{FOLDER}/{clip.name}.{clip.suffix}": clip.elementary for clip in made.values()}
