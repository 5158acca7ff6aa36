"""Audio that is compared bit by bit: making it in every format of ALSA's, and finding it again.

The bench makes noise, because no two places in it look alike: a lost, doubled or swapped piece is seen at once.
"""

import random
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

# Name: bits of a sample in memory, how many of them count (the low ones), and what they are.
FORMATS = {
    "IMA_ADPCM": (4, 4, "code"), "MU_LAW": (8, 8, "code"), "A_LAW": (8, 8, "code"),
    "S8": (8, 8, "signed"), "U8": (8, 8, "unsigned"),
    "S16_LE": (16, 16, "signed"), "U16_LE": (16, 16, "unsigned"),
    "S18_3LE": (24, 18, "signed"), "U18_3LE": (24, 18, "unsigned"),
    "S20_3LE": (24, 20, "signed"), "U20_3LE": (24, 20, "unsigned"),
    "S24_3LE": (24, 24, "signed"), "U24_3LE": (24, 24, "unsigned"),
    "S20_LE": (32, 20, "signed"), "U20_LE": (32, 20, "unsigned"),
    "S24_LE": (32, 24, "signed"), "U24_LE": (32, 24, "unsigned"),
    "S32_LE": (32, 32, "signed"), "U32_LE": (32, 32, "unsigned"),
    "FLOAT_LE": (32, 32, "float"), "FLOAT64_LE": (64, 64, "float"),
    "DSD_U8": (8, 8, "code"), "DSD_U16_LE": (16, 16, "code"), "DSD_U32_LE": (32, 32, "code"),
    "IEC958_SUBFRAME_LE": (32, 32, "code"),
}


@dataclass(frozen=True)
class Shape:
    """How samples are laid out."""

    format: str
    channels: int
    rate: int

    @property
    def frame(self) -> int:
        """Bytes per frame; where a frame is half a byte, 1."""
        return max(1, self.bytes(1))

    def bytes(self, frames: int) -> int:
        """Bytes of so many frames."""
        return frames * self.channels * FORMATS[self.format][0] // 8

    def __str__(self) -> str:
        return f"{self.format} × {self.channels} at {self.rate}"


def clip(shape: Shape, frames: int, seed: int = 0) -> bytes:
    """Noise of this shape. Every sample is one that a device must keep: in range, and no special value of a float."""
    bits, valid, kind = FORMATS[shape.format]
    source = random.Random(f"{shape}/{seed}")
    count = frames * shape.channels
    if kind == "float":
        # steps that a 32-bit float holds exactly
        steps = array("H", source.randbytes(2 * count))
        return array("f" if bits == 32 else "d", (step / 32768 - 1 for step in steps)).tobytes()
    if bits == valid:
        return source.randbytes(shape.bytes(frames))
    samples = bytearray()
    for noise in array("I", source.randbytes(4 * count)):
        value = noise >> (32 - valid)
        if kind == "signed" and value >> (valid - 1):
            # extended over the unused bits, as ALSA's own programs do
            value |= (1 << 32) - (1 << valid)
        samples += struct.pack("<I", value)[: bits // 8]
    return bytes(samples)


def as_in_wav(shape: Shape, samples: bytes) -> bytes:
    """The same samples as a WAV file has them: 8 bits unsigned, all others signed, unused bits at the bottom."""
    bits, valid, kind = FORMATS[shape.format]
    flip = kind == ("signed" if bits == 8 else "unsigned")
    if kind not in {"signed", "unsigned"} or (bits == valid and not flip):
        return samples
    size = bits // 8
    mask = (1 << bits) - 1
    top = 1 << (bits - 1) if flip else 0
    out = bytearray()
    for at in range(0, len(samples), size):
        value = int.from_bytes(samples[at : at + size], "little")
        out += ((value << (bits - valid) & mask) ^ top).to_bytes(size, "little")
    return bytes(out)


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
    loop = loop[: len(loop) // shape.frame * shape.frame]
    repeats = len(recorded) // len(loop) + 2
    return find(shape, recorded, loop * repeats)


def wav_data(file: Path) -> bytes:
    """The samples of a WAV file as they lie in it, whatever their format; of a file that is none, all that is in it."""
    content = file.read_bytes()
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"data":
            # a writer that has not finished has not filled in the size, or only that of its last visit
            unfinished = size in (0, 0xFFFFFFFF)
            return content[at + 8 :] if unfinished else content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise ValueError(f"{file} has no samples")


@dataclass(frozen=True)
class Journey:
    """How a clip came through something that may lose pieces of it."""

    lost: int  # frames of the clip that never came
    repeated: int  # frames that came although they, or later ones, had come before
    foreign: int  # frames that are not of the clip, silence apart

    def __str__(self) -> str:
        return f"{self.lost} frames lost, {self.repeated} repeated, {self.foreign} foreign"


def follow(shape: Shape, sent: bytes, arrived: bytes) -> Journey:
    """Compare what arrived with the noise that was sent, piece by piece. Silence is passed over."""
    frame = shape.frame
    look = frame * 4  # so much noise stands at one place only
    here = 0  # in what was sent: the end of the last piece that came
    at = lost = repeated = foreign = 0
    while at + look <= len(arrived):
        piece = arrived[at : at + look]
        start = sent.find(piece, here)
        while start >= 0 and start % frame:
            start = sent.find(piece, start + 1)
        if start < 0 and not any(piece[:frame]):
            at += frame
            continue
        again = start < 0
        if again:
            start = sent.find(piece)
            if start < 0:
                foreign += 1
                at += frame
                continue
        length = _common(sent, start, arrived, at) // frame * frame
        if again:
            # only up to where it had come before
            length = min(length, here - start)
            repeated += length // frame
        else:
            lost += (start - here) // frame
            here = start + length
        at += length
    return Journey(lost + (len(sent) - here) // frame, repeated, foreign)


def _common(one: bytes, start: int, other: bytes, at: int) -> int:
    """How many bytes are equal from these places on."""
    most = min(len(one) - start, len(other) - at)
    low, step = 0, 4096
    while low < most and step:
        if one[start + low : start + low + step] == other[at + low : at + low + step]:
            low = min(most, low + step)
        else:
            step //= 2
    return low
