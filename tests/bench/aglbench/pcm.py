"""Audio that is compared bit by bit: making it in every format of ALSA's, and finding it again.

The bench makes noise, because no two places in it look alike: a lost, doubled or swapped piece is seen at once.
"""

import random
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

# Name: bytes per sample, and how a sample's bits are used.
FORMATS = {
    "S8": (1, "raw"), "U8": (1, "raw"), "MU_LAW": (1, "raw"), "A_LAW": (1, "raw"),
    "S16_LE": (2, "raw"), "U16_LE": (2, "raw"),
    "S18_3LE": (3, "s18"), "U18_3LE": (3, "u18"), "S20_3LE": (3, "s20"), "U20_3LE": (3, "u20"),
    "S24_3LE": (3, "raw"), "U24_3LE": (3, "raw"),
    "S20_LE": (4, "s20"), "U20_LE": (4, "u20"), "S24_LE": (4, "s24"), "U24_LE": (4, "u24"),
    "S32_LE": (4, "raw"), "U32_LE": (4, "raw"),
    "FLOAT_LE": (4, "float"), "FLOAT64_LE": (8, "float"),
    "DSD_U8": (1, "raw"), "DSD_U16_LE": (2, "raw"), "DSD_U32_LE": (4, "raw"),
    "IEC958_SUBFRAME_LE": (4, "raw"),
}


@dataclass(frozen=True)
class Shape:
    """How samples are laid out."""

    format: str
    channels: int
    rate: int

    @property
    def frame(self) -> int:
        """Bytes per frame."""
        return FORMATS[self.format][0] * self.channels

    def __str__(self) -> str:
        return f"{self.format} × {self.channels} at {self.rate}"


def clip(shape: Shape, frames: int, seed: int = 0) -> bytes:
    """Noise of this shape. Every sample is one that a device must keep: in range, and no special value of a float."""
    size, use = FORMATS[shape.format]
    count = frames * shape.channels
    source = random.Random(f"{shape}/{seed}")
    if use == "raw":
        return source.randbytes(count * size)
    if use == "float":
        # steps that a 32-bit float holds exactly
        return array("f" if size == 4 else "d", (v / 32768 - 1 for v in array("H", source.randbytes(2 * count)))).tobytes()
    bits = int(use[1:])
    sign = use[0] == "s"
    samples = bytearray()
    for value in array("I", source.randbytes(4 * count)):
        value >>= 32 - bits
        if sign and value >> (bits - 1):
            # extended over the unused bits, as ALSA's own programs do
            value |= (1 << 32) - (1 << bits)
        samples += struct.pack("<I", value)[:size]
    return bytes(samples)


@dataclass(frozen=True)
class Match:
    """Where a clip was found."""

    exact: bool
    offset: int = 0  # frames before the clip
    wrong_at: int = 0  # if not exact: the first frame of the clip that differs

    def __bool__(self) -> bool:
        return self.exact

    def __str__(self) -> str:
        return f"exact, {self.offset} frames in" if self.exact else f"differs at frame {self.wrong_at}"


def find(shape: Shape, wanted: bytes, captured: bytes) -> Match:
    """Find a clip, whole and uninterrupted, in what was captured."""
    at = 0
    # on a frame's boundary: anything else is a match by accident, or channels out of place
    while (at := captured.find(wanted, at)) >= 0:
        if at % shape.frame == 0:
            return Match(True, at // shape.frame)
        at += 1
    # for the message: how much of it is there, from where it seems to begin
    head = wanted[: shape.frame * 8]
    start = captured.find(head)
    same = 0
    if start >= 0:
        same = next((i for i, (a, b) in enumerate(zip(wanted, captured[start:], strict=False)) if a != b),
                    min(len(wanted), len(captured) - start))
    return Match(False, max(start, 0) // shape.frame, same // shape.frame)


def find_in_loop(shape: Shape, recorded: bytes, loop: bytes) -> Match:
    """Find what was recorded in an endless repetition of a clip, from any frame of it on."""
    repeats = len(recorded) // len(loop) + 2
    return find(shape, recorded, loop * repeats)


def wav_data(file: Path) -> bytes:
    """The samples of a WAV file as they lie in it, whatever their format; also of one that is still being written."""
    content = file.read_bytes()
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        raise ValueError(f"{file} is not a WAV file")
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"data":
            # a writer that has not finished has not filled in the size, or only that of its last visit
            unfinished = size in (0, 0xFFFFFFFF)
            return content[at + 8 :] if unfinished else content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise ValueError(f"{file} has no samples")
