# SPDX-License-Identifier: Apache-2.0
"""What the demo plays, and what it finds in the recordings.

A band has published a song as the tracks of a game: itself in stereo, and its guitar in stereo. Side by side they are four
channels of real music in which every swapped, lost or repeated piece is found, and seen in a picture.
"""

import subprocess
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aglbench.pcm import wav_data
from aglbench.progress import SetupError

# The package fretsonfire-songs-sectoid: "Feelings", composed and performed by Sectoid (Carlos Viola Iborra).
SONG = Path("/usr/share/games/fretsonfire/data/songs/sectoid/Feelings")
TITLE = "“Feelings” by Sectoid: the band in front, its guitar in the rear"
# In the order of ALSA's map for four channels: front left and right, rear left and right.
TRACKS = (SONG / "song.ogg", SONG / "guitar.ogg")
# The package alsa-utils: a person says "front center".
SPOKEN = Path("/usr/share/sounds/alsa/Front_Center.wav")


@dataclass(frozen=True)
class Excerpt:
    """What is played of the song, in samples of 16 bits."""

    channels: int
    rate: int
    begin: int  # seconds
    seconds: int

    @property
    def frames(self) -> int:
        """Frames from begin to end."""
        return self.rate * self.seconds

    @property
    def alsa(self) -> str:
        """The shape in the words of aplay and arecord."""
        return f"-f S16_LE -c {self.channels} -r {self.rate}"


# The excerpt's file, on the host and for the guest.
MUSIC = "music.wav"
# Here all four channels sound.
PLAYED = Excerpt(channels=4, rate=44100, begin=78, seconds=6)


def prepare_music(target: Path) -> None:
    """Decode the excerpt."""
    missing = [str(file) for file in (*TRACKS, SPOKEN) if not file.exists()]
    if missing:
        raise SetupError(f"there is no {', no '.join(missing)}", "make setup, which installs fretsonfire-songs-sectoid and alsa-utils")
    sox("-M", *TRACKS, "-D", "-r", PLAYED.rate, "-b", "16", target, "trim", PLAYED.begin, f"{PLAYED.frames}s")


def picture(recording: Path, title: str) -> None:
    """A spectrogram of all channels beside a recording."""
    sox(recording, "-n", "spectrogram", "-x", "800", "-z", "100", "-t", title, "-c", "agl-virtio: as the host captured it",
        "-o", recording.with_suffix(".png"))


def sox(*words: str | int | Path) -> None:
    """Run sox."""
    done = subprocess.run(["sox", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"sox: {done.stderr.strip()}", "see build/demo")


class Recording:
    """Samples of 16 bits out of a WAV file."""

    def __init__(self, samples: array):
        self.samples = samples

    @classmethod
    def of(cls, file: Path) -> Self:
        """Read a file of the excerpt's shape."""
        samples = array("h")
        data = wav_data(file)
        samples.frombytes(data[:len(data) - len(data) % (2 * PLAYED.channels)])
        return cls(samples)

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return len(self.samples) // PLAYED.channels

    def is_exactly(self, original: Path) -> tuple[bool, str]:
        """Whether it is the original; silence that a driver adds to fill its last period is not counted."""
        wanted = Recording.of(original)
        count = len(wanted.samples)
        if self.samples[:count] == wanted.samples and not any(self.samples[count:]):
            return True, f"{wanted.frames} frames of {PLAYED.channels} channels, every bit as it was sent"
        wrong = next((at for at, (one, other) in enumerate(zip(self.samples, wanted.samples, strict=False)) if one != other), None)
        where = "the end is missing" if wrong is None else f"frame {wrong // PLAYED.channels} is the first that differs"
        return False, f"{self.frames} frames, {where}"

    def is_part_of(self, original: Path) -> tuple[bool, str]:
        """Whether it is a piece of the original, played over and over."""
        wanted = Recording.of(original).samples.tobytes()
        at = (wanted + wanted).find(self.samples.tobytes())
        whole = at >= 0 and at % (2 * PLAYED.channels) == 0 and any(self.samples)
        where = "every bit as in the host's file" if whole else "not what the host's file has"
        return whole, f"{self.frames} frames of {PLAYED.channels} channels, {where}"

    def gains(self, original: Path, piece_ms: int = 20) -> list[float]:
        """How loud each piece is, as a factor of the original, which is played over and over."""
        wanted = Recording.of(original).samples
        wanted *= len(self.samples) // len(wanted) + 1
        step = PLAYED.rate * piece_ms // 1000 * PLAYED.channels
        pieces = range(0, len(self.samples) - step + 1, step)
        return [loudness(self.samples[at:at + step]) / max(1, loudness(wanted[at:at + step])) for at in pieces]

    def repeats_nothing(self, original: Path) -> tuple[bool, str]:
        """Whether all its frames are the original's in their order, some perhaps missing, none twice."""
        wanted = Recording.of(original)
        size = 2 * PLAYED.channels
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
        if any(own[taken:]):
            return False, f"frame {taken // size} is out of order"
        return True, f"{(wanted.frames - kept) / PLAYED.rate * 1000:.1f} ms of sound lost, nothing repeated"


def loudness(samples: array) -> int:
    """The sum of all deflections."""
    return sum(map(abs, samples))
