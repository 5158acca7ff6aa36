"""Rectangles of a guest's codecs: what an encoder takes of its pictures, and where in its buffers a decoder puts what it decodes."""

from pathlib import Path

from . import clips, codecs
from .checks import must, run
from .clips import Clip, Part
from .codecs import Programs

SOURCES = Path(__file__).resolve().parents[1] / "video-consumer"
# What is encoded of a picture, and where a decoded one is put in a buffer.
CROP = Part(96, 64)
CROP_AT = (34, 18)
ROOM = (320, 240)
ROOM_AT = (66, 34)


def programs(work: Path) -> dict[str, bytes | Path]:
    """Those that this module has the guest run, and one that seeks."""
    names = ("seek", "crop")
    for name in names:
        run("aarch64-linux-gnu-gcc", "-O2", "-static", "-o", work / name, SOURCES / f"{name}.c")
    return {f"usr/bin/{name}": work / name for name in names}


def decoded_into_larger_buffers(bench: Programs, clip: Clip, device: str) -> str:
    """Each frame as the host's software decoder has it, at its place, and nothing written around it."""
    place = " ".join(str(number) for number in (*ROOM, *ROOM_AT))
    result = bench.guest.run(f"seek {device} /clips/{clip.name}.units 1 {place} > /tmp/out", 120, check=False)
    must(result.code == 0, result.text)
    said = codecs.same(codecs.i420(bench.fetch("/tmp/out"), clip.parts[0]), clip, "seek", result.text)
    return f"{said} at {ROOM_AT[0]},{ROOM_AT[1]} of {ROOM[0]}x{ROOM[1]}"


def _cut(frame: bytes, whole: Part) -> bytes:
    """What is in the rectangle of a frame of I420, without padding."""
    result, at = [], 0
    for number, (width, rows, stride) in enumerate(clips.planes(whole.width, whole.height)):
        half = 2 if number else 1
        left, top = (place // half for place in CROP_AT)
        for row in range(top, top + CROP.height // half):
            begin = at + row * stride + left
            result.append(frame[begin:begin + CROP.width // half])
        must(left + CROP.width // half <= width, "the rectangle is not in the picture")
        at += stride * rows
    return b"".join(result)


def encoded_out_of_a_rectangle(bench: Programs, raw: bytes, whole: Part, device: str, work: Path) -> str:
    """The host decodes as many frames of the rectangle's size, close to what lies in it."""
    numbers = " ".join(str(number) for number in (CROP.width, CROP.height, *CROP_AT, whole.width, whole.height))
    result = bench.guest.run(f"crop {device} /clips/raw {numbers} > /tmp/out", 120, check=False)
    must(result.code == 0, result.text)
    coded = work / "encoded-rectangle"
    coded.write_bytes(bench.fetch("/tmp/out"))
    found = clips.decoded(coded, "h264")
    size = clips.frame_size(whole.width, whole.height)
    wanted = b"".join(_cut(raw[at:at + size], whole) for at in range(0, len(raw), size))
    must(len(found) == len(wanted), f"{len(found)} bytes of pictures, {len(wanted)} wanted: {result.text}")
    near = clips.psnr(found, wanted)
    must(near > 30, f"only {near:.1f} dB")
    return f"{whole.frames} frames of {CROP.width}x{CROP.height} at {CROP_AT[0]},{CROP_AT[1]}, {near:.1f} dB"
