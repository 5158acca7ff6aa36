"""Small streams for checks of codecs, made on the host, and what the host's own decoders make of them.

A clip is known to a check as its access units: from these come the files that each program of the guest reads.
"""

import hashlib
import math
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from .checks import must, run

LENGTH = 30
RATE = 25


@dataclass(frozen=True)
class Part:
    """A piece of one size."""

    width: int
    height: int
    frames: int = LENGTH


@dataclass
class Clip:
    """A stream."""

    name: str
    codec: str
    parts: list[Part]
    units: list[bytes] = field(repr=False)
    hashes: list[str] = field(repr=False)
    # the hashes in NV12 that those say who gave the stream
    sums: list[str] = field(default_factory=list, repr=False)

    @property
    def elementary(self) -> bytes:
        """As programs read it: VP8 and VP9 in IVF, all others as a byte stream."""
        if self.codec not in FOURCC:
            return b"".join(self.units)
        head = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, FOURCC[self.codec], self.parts[0].width, self.parts[0].height, RATE, 1,
                           len(self.units), 0)
        return head + b"".join(struct.pack("<IQ", len(unit), number) + unit for number, unit in enumerate(self.units))

    @property
    def with_headers(self) -> bytes:
        """As v4l2-ctl and v4l2-compliance read it with --stream-from-hdr: each unit behind its length."""
        return b"".join(b"rdhV" + struct.pack(">I", len(unit)) + unit for unit in self.units)

    @property
    def suffix(self) -> str:
        """The file's."""
        return "ivf" if self.codec in FOURCC else self.codec


FOURCC = {"vp8": b"VP80", "vp9": b"VP90"}
ENCODERS = {
    "h264": "x264enc speed-preset=veryfast bframes=3 key-int-max=10 bitrate=300 byte-stream=true",
    "h264-high": "x264enc speed-preset=slower bframes=2 b-pyramid=true key-int-max=15 bitrate=400 byte-stream=true dct8x8=true interlaced=false",
    "h264-baseline": "x264enc speed-preset=ultrafast bframes=0 cabac=false key-int-max=10 bitrate=300 byte-stream=true",
    "h265": "x265enc speed-preset=superfast bitrate=300 key-int-max=10 option-string=bframes=3:log-level=none",
    "vp8": "vp8enc target-bitrate=300000 keyframe-max-dist=10 deadline=1 cpu-used=8",
    "vp9": "vp9enc target-bitrate=300000 keyframe-max-dist=10 deadline=1 cpu-used=8",
}
# Each unit is to be one access unit, the headers with its key frames.
PARSERS = {
    "h264": "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au",
    "h265": "h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au",
    "vp8": "identity", "vp9": "identity",
}
DECODERS = {"h264": "avdec_h264 max-threads=1", "h265": "avdec_h265 max-threads=1", "vp8": "vp8dec threads=1", "vp9": "vp9dec threads=1"}


def raw(path: Path, part: Part, pattern: str) -> Path:
    """A moving picture, I420 in GStreamer's own arrangement."""
    _launch(f"videotestsrc num-buffers={part.frames} pattern={pattern} ! video/x-raw,format=I420,width={part.width},"
            f"height={part.height},framerate={RATE}/1 ! filesink location={path}")
    return path


def decoded(coded: Path, codec: str) -> bytes:
    """Pictures in a file of H.264 or HEVC, by the host's software decoder: I420 in GStreamer's own arrangement."""
    out = coded.with_suffix(".i420")
    _launch(f"filesrc location={coded} ! {codec}parse ! {DECODERS[codec]} ! videoconvert ! video/x-raw,format=I420 ! filesink location={out}")
    return out.read_bytes()


def _launch(pipeline: str) -> None:
    run("nice", "gst-launch-1.0", "-q", "-e", *pipeline.split())


@dataclass(frozen=True)
class Recipe:
    """What a clip is to be."""

    name: str
    codec: str
    parts: list[Part]
    encoder: str | None = None


def make(folder: Path, recipes: list[Recipe]) -> dict[str, Clip]:
    """Make clips, and the hashes of their frames by the host's software decoders."""
    encode, decode = [], []
    wanted = [(recipe, part, folder / f"{recipe.name}-{part.width}") for recipe in recipes for part in recipe.parts]
    for recipe, part, base in wanted:
        units = base.with_suffix(".units")
        units.mkdir()
        # A test picture that moves, so that each frame differs from the one before.
        encode.append(f"videotestsrc num-buffers={part.frames} pattern=smpte horizontal-speed=3 ! video/x-raw,format=I420,width={part.width},"
                      f"height={part.height},framerate={RATE}/1 ! {ENCODERS[recipe.encoder or recipe.codec]} ! {PARSERS[recipe.codec]} ! "
                      f"multifilesink location={units}/%05d")
    _launch(" ".join(encode))
    for recipe, part, base in wanted:
        one = Clip(recipe.name, recipe.codec, [part], _units(base), [])
        base.write_bytes(one.elementary)
        source = "ivfparse" if one.suffix == "ivf" else PARSERS[recipe.codec].split("!")[0]
        decode.append(f"filesrc location={base} ! {source} ! {DECODERS[recipe.codec]} ! videoconvert ! video/x-raw,format=I420 ! "
                      f"filesink location={base}.i420")
    _launch(" ".join(decode))
    clips = {recipe.name: Clip(recipe.name, recipe.codec, recipe.parts, [], []) for recipe in recipes}
    for recipe, part, base in wanted:
        found = frame_hashes(Path(f"{base}.i420").read_bytes(), [part])
        must(len(found) == part.frames, f"the host decodes {len(found)} of {part.frames} frames of {recipe.name}")
        must(len(set(found)) > part.frames // 2, f"the frames of {recipe.name} are all the same")
        clips[recipe.name].units.extend(_units(base))
        clips[recipe.name].hashes.extend(found)
    return clips


def _units(base: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(base.with_suffix(".units").iterdir())]


def planes(width: int, height: int, stride_multiple: int = 4) -> list[tuple[int, int, int]]:
    """Width, height and stride of I420's three planes, as GStreamer arranges them."""
    def up(value: int, multiple: int) -> int:
        return -(-value // multiple) * multiple

    half = up(width, 2) // 2
    rows = up(height, 2) // 2
    luma = up(width, stride_multiple)
    # GStreamer gives the luma plane as many rows as two of the chroma's have
    return [(width, height, luma), (half, rows, up(half, stride_multiple)), (half, rows, up(half, stride_multiple))]


def frame_size(width: int, height: int) -> int:
    """Bytes of an I420 frame as GStreamer writes it."""
    luma, chroma, _ = planes(width, height)
    return luma[2] * (-(-height // 2) * 2) + 2 * chroma[2] * chroma[1]


def tight_size(width: int, height: int) -> int:
    """Bytes of what is seen of a frame of eight bits, 4:2:0."""
    return width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)


def tight(frame: bytes, width: int, height: int) -> bytes:
    """Only what is seen of a frame, as FFmpeg's framemd5 takes it."""
    result, offset = [], 0
    for number, (columns, rows, stride) in enumerate(planes(width, height)):
        result += [frame[offset + row * stride:offset + row * stride + columns] for row in range(rows)]
        offset += stride * (-(-height // 2) * 2 if number == 0 else rows)
    return b"".join(result)


def frame_hashes(data: bytes, parts: list[Part]) -> list[str]:
    """The hash of each frame in what GStreamer wrote. The last part takes all that is left."""
    hashes, at = [], 0
    for number, part in enumerate(parts):
        size = frame_size(part.width, part.height)
        last = number == len(parts) - 1
        count = (len(data) - at) // size if last else part.frames
        for _ in range(count):
            hashes.append(hashlib.md5(tight(data[at:at + size], part.width, part.height)).hexdigest())
            at += size
    if at != len(data):
        hashes.append(f"and {len(data) - at} bytes more")
    return hashes


def psnr(one: bytes, other: bytes) -> float:
    """In dB, of equally long pictures."""
    if len(one) != len(other) or not one:
        return 0.0
    error = sum((a - b) * (a - b) for a, b in zip(one, other)) / len(one)
    return 99.0 if error == 0 else 10 * math.log10(255 * 255 / error)


def key_frames(stream: bytes) -> list[int]:
    """Which pictures of an H.264 byte stream are IDR pictures."""
    kinds = [stream[found.end()] & 31 for found in re.finditer(rb"\x00\x00\x01", stream) if found.end() + 1 < len(stream)]
    starts = [found.end() for found in re.finditer(rb"\x00\x00\x01", stream) if found.end() + 1 < len(stream)]
    # the first slice of a picture begins with first_mb_in_slice = 0, a single bit 1
    pictures = [kind for kind, at in zip(kinds, starts) if kind in (1, 5) and stream[at + 1] & 0x80]
    return [number for number, kind in enumerate(pictures) if kind == 5]
