# SPDX-License-Identifier: Apache-2.0
"""Video: clips are decoded in the guest, by the host's codecs, and each frame compared with the host's own decoder; pictures
are encoded, and what the host decodes of that is compared with what they were."""

import re
from pathlib import Path

from aglbench import clips
from aglbench.clips import Clip, Part, Recipe
from pictures import dimensions, png
from stage import Card, Seen, Stage

CLIPS = [Recipe("h264", "h264", [Part(320, 240)]), Recipe("h265", "h265", [Part(320, 240)])]
# What is encoded, and how far from it the result may be.
RAW = Part(320, 240)
BITRATE = 400_000
LEAST_DB = 30
# Where the guest's programs find them.
FOLDER = "clips"
# This one is shown.
FRAME = 17
PICTURE = "6-decoded.png"
ENCODED = "8-encoded.h264"


def compared(found: list[str], wanted: list[str]) -> Seen:
    """Checksums of the guest's frames beside those of the host's."""
    same = sum(here == there for here, there in zip(found, wanted, strict=False))
    if found == wanted and wanted:
        return True, f"{same} frames, all checksums as by the host's software decoder"
    return False, f"{len(found)} frames of {len(wanted)}, {same} of them the same"


def judged(coded: int, pictures: bytes, wanted: bytes) -> Seen:
    """So many bytes of a coded stream, by the pictures that the host decodes of it and those that went in."""
    if len(pictures) != len(wanted):
        return False, f"{len(pictures)} bytes of pictures, {len(wanted)} wanted"
    quality = clips.psnr(pictures, wanted)
    rate = coded * 8 * clips.RATE / RAW.frames
    return quality > LEAST_DB, f"{RAW.frames} frames, {quality:.1f} dB as the host decodes them, {rate / 1000:.0f} kbit/s"


class Codec(Card):
    """The decoder and the encoder."""

    kind = "video"

    def __init__(self, stage: Stage, made: dict[str, Clip], raw: Path):
        super().__init__(stage)
        self.clips = made
        self.raw = raw

    def sees_the_codecs(self) -> Seen:
        # a busy machine must not make the driver give up on a device that is merely slow
        self.guest.run("modprobe videobuf2-dma-sg; modprobe videobuf2-v4l2; insmod /virtio_video.ko timeout_ms=60000")
        found = {}
        for function, option in (("decoder", "--list-formats-out"), ("encoder", "--list-formats")):
            node = self.guest.run(f"basename $(dirname $(grep -l virtio-video-{function} /sys/class/video4linux/*/name))").text.strip()
            found[function] = re.findall(r"'(\w{4})'", self.guest.run(f"media v4l2-ctl -d /dev/{node} {option}").text)
        holds = all({"H264", "HEVC"} <= set(formats) for formats in found.values())
        return holds, "; ".join(f"{function}: {' '.join(formats)}" for function, formats in found.items())

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

    def encodes_h264(self) -> Seen:
        self.guest.run(f"media gst-launch-1.0 -q filesrc location=/guest/{FOLDER}/raw ! "
                       f"rawvideoparse format=i420 width={RAW.width} height={RAW.height} framerate={clips.RATE}/1 ! "
                       f"v4l2h264enc extra-controls=controls,video_bitrate={BITRATE} ! 'video/x-h264,profile=main,level=(string)4' ! "
                       "filesink location=/tmp/encoded", timeout=120)
        coded = self.stage.out / ENCODED
        coded.write_bytes(self.stage.fetch("/tmp/encoded"))
        pictures = clips.decoded(coded, "h264")
        coded.with_suffix(".i420").unlink()
        holds, saw = judged(coded.stat().st_size, pictures, self.raw.read_bytes())
        return holds, f"v4l2h264enc: {saw}; {ENCODED}"

    steps = (
        ("the guest sees decoder and encoder", sees_the_codecs),
        ("a clip in H.264 is decoded", decodes_h264),
        ("a clip in HEVC is decoded", decodes_hevc),
        ("pictures are encoded", encodes_h264),
    )


def files(made: dict[str, Clip], raw: Path) -> dict[str, bytes | Path]:
    """The clips and the pictures, for the guest."""
    return {f"{FOLDER}/raw": raw, **{f"{FOLDER}/{clip.name}.{clip.suffix}": clip.elementary for clip in made.values()}}
