# SPDX-License-Identifier: Apache-2.0
"""What the demo plays, and what it finds in the recordings.

alsa-utils brings a person who says the name of each loudspeaker. Put on six channels, a swapped channel is heard and seen.
"""

import subprocess
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aglbench.pcm import wav_data

SOUNDS = Path("/usr/share/sounds/alsa")
# In the order of ALSA's map for six channels.
SPOKEN = ("Front_Left", "Front_Right", "Rear_Left", "Rear_Right", "Front_Center", "Noise")


@dataclass(frozen=True)
class Shape:
    """What is played."""

    channels: int
    rate: int
    frames: int


PLAYED = Shape(channels=6, rate=48000, frames=3 * 48000)


def prepare_speech(target: Path) -> None:
    """Six voices side by side, said over and over, 16 bits."""
    missing = [name for name in SPOKEN if not (SOUNDS / f"{name}.wav").exists()]
    if missing:
        raise FileNotFoundError(f"{SOUNDS} has no {', '.join(missing)}: install alsa-utils")
    voices = [str(SOUNDS / f"{name}.wav") for name in SPOKEN]
    subprocess.run(
        ["sox", "-M", *voices, "-R", "-r", str(PLAYED.rate), "-b", "16", str(target), "trim", "0", "1.3",
         "repeat", "4", "trim", "0", f"{PLAYED.frames}s"],
        check=True, stderr=subprocess.DEVNULL,
    )


def picture(recording: Path) -> None:
    """A spectrogram of all channels beside a recording."""
    subprocess.run(
        ["sox", str(recording), "-n", "spectrogram", "-x", "800", "-t", recording.stem, "-o", str(recording.with_suffix(".png"))],
        check=True, stderr=subprocess.DEVNULL,
    )


class Recording:
    """Samples of 16 bits out of a WAV file."""

    def __init__(self, channels: int, samples: array):
        self.channels = channels
        self.samples = samples

    @classmethod
    def of(cls, file: Path) -> Self:
        """Read a file of the demo's own shape."""
        samples = array("h")
        samples.frombytes(wav_data(file))
        return cls(PLAYED.channels, samples)

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return len(self.samples) // self.channels

    def is_exactly(self, original: Path) -> tuple[bool, str]:
        """Whether it is the original; silence that a driver adds to fill its last period is not counted."""
        wanted = Recording.of(original)
        count = len(wanted.samples)
        same = self.samples[:count] == wanted.samples and not any(self.samples[count:])
        if same:
            return True, f"{wanted.frames} frames of {self.channels} channels, all equal"
        wrong = next((at for at, (one, other) in enumerate(zip(self.samples, wanted.samples)) if one != other), "the end")
        return False, f"{self.frames} frames of {self.channels} channels, the first difference at {wrong}"

    def is_part_of(self, original: Path) -> tuple[bool, str]:
        """Whether it is a piece of the original, played over and over."""
        wanted = Recording.of(original).samples.tobytes()
        piece = self.samples.tobytes()
        at = (wanted + wanted).find(piece)
        whole = at >= 0 and at % (2 * self.channels) == 0 and any(self.samples)
        where = f"from frame {at // (2 * self.channels)} of the source" if whole else "found nowhere in the source"
        return whole, f"{self.frames} frames of {self.channels} channels, {where}"

    def fell_to(self, original: Path, factor: float) -> tuple[bool, str]:
        """Whether it is as loud as the original at first and `factor` times as loud at the end."""
        wanted = Recording.of(original).samples
        count = min(len(wanted), len(self.samples))
        quarter = count // 4
        first, last = (self._gain(wanted, *span) for span in ((0, quarter), (3 * quarter, count)))
        saw = f"gain {first:.3f} at first, {last:.3f} at the end"
        return abs(first - 1) < 0.001 and abs(last - factor) < 0.005, saw

    def _gain(self, wanted: array, start: int, end: int) -> float:
        own = sum(abs(sample) for sample in self.samples[start:end])
        return own / max(1, sum(abs(sample) for sample in wanted[start:end]))

    def repeats_nothing(self, original: Path) -> tuple[bool, str]:
        """Whether all its frames are the original's in their order, some perhaps missing, none twice."""
        wanted = Recording.of(original)
        size = 2 * self.channels
        source, own = wanted.samples.tobytes(), self.samples.tobytes()
        at = taken = kept = 0
        while taken < len(own) and at < len(source):
            # As long as both agree; then the source is searched for where the recording goes on.
            if own[taken:taken + size] == source[at:at + size]:
                taken, at, kept = taken + size, at + size, kept + 1
                continue
            ahead = source.find(own[taken:taken + 64 * size], at)
            if ahead < 0:
                break
            at = ahead + (-ahead % size)
        rest_is_silence = not any(own[taken:])
        lost = wanted.frames - kept
        saw = f"{lost} of {wanted.frames} frames lost ({lost / PLAYED.rate * 1000:.1f} ms), none repeated"
        return (rest_is_silence, saw) if rest_is_silence else (False, f"frame {taken // size} is out of order")
