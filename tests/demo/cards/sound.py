# SPDX-License-Identifier: Apache-2.0
"""Sound: music of four channels goes into the guest and out through its card; what comes out is compared with what went in."""

import shutil
import time
from pathlib import Path

from aglbench.guest import GuestError, Job
from music import MUSIC, PLAYED, SPOKEN, Recording, picture
from stage import Card, Seen, Stage, TooSlow

APLAY = "aplay -q --buffer-time=1000000 -D hw:0,0"


class Sound(Card):
    """The sound card."""

    kind = "sound"

    def __init__(self, stage: Stage):
        super().__init__(stage)
        self.device = stage.proxy("cabin")
        self.playing: Job | None = None
        self.music = stage.out / MUSIC
        shutil.copy(self.music, self.guest.share / MUSIC)
        shutil.copy(SPOKEN, self.guest.share / "spoken.wav")

    def sees_the_card(self) -> Seen:
        plays, records = self.guest.run("aplay -l").text, self.guest.run("arecord -l").text
        card = next((line.split(", ")[0] for line in plays.splitlines() if line.startswith("card 0")), "no card")
        outputs, inputs = plays.count("card 0"), records.count("card 0")
        return outputs == 2 and inputs == 1, f"{card}: {outputs} outputs, {inputs} input"

    def plays_bit_exact(self) -> Seen:
        self.guest.run(f"{APLAY} /share/music.wav")
        return self.captured("1-played", "music, as it was sent").is_exactly(self.music)

    def volume_changes_while_playing(self) -> Seen:
        playing, watching = self.play_for_long()
        reach(watching, PLAYED.rate)
        # 24 half decibels below unity
        self.device.set("streams/0", "Sound.Stream", "Volume", "double:0.76")
        reach(watching, 2 * PLAYED.rate)
        mixer = self.guest.run("amixer -c0 cget name='Music Playback Volume'").text
        end(playing)
        self.device.set("streams/0", "Sound.Stream", "Volume", "double:1.0")
        gains = self.captured("2-volume", "12 dB softer, over D-Bus").gains(self.music)
        holds = near(gains[0], 1.0) and near(gains[-2], 10 ** (-12 / 20)) and "values=76" in mixer
        knob = "-12 dB" if "values=76" in mixer else "not that"
        return holds, f"gain {gains[0]:.3f}, then {gains[-2]:.3f}; the guest's mixer shows {knob}"

    def announcement_ducks_the_music(self) -> Seen:
        playing, watching = self.play_for_long()
        reach(watching, PLAYED.rate)
        said = self.guest.run("aplay -q -D hw:0,1 /share/spoken.wav")
        after = position(watching.lines[-1]) + PLAYED.rate
        reach(watching, after)
        end(playing)
        gains = self.captured("3-ducked", "ducked while an announcement is made").gains(self.music)
        ducked = sum(near(gain, 0.1) for gain in gains) * 0.02
        holds = near(gains[0], 1.0) and ducked > 1.0 and near(gains[-2], 1.0) and said.code == 0
        return holds, f"gain {gains[0]:.3f}, then {min(gains):.3f} for {ducked:.1f} s, then {gains[-2]:.3f}"

    def jack_is_pulled_and_plugged(self) -> Seen:
        def plugged() -> str:
            text = self.guest.run("amixer -c0 cget iface=CARD,name='Headphone Jack'").text
            return "plugged" if "values=on" in text else "pulled"

        watching = self.guest.spawn("control-events 0")
        watching.expect("Ready")
        seen = [plugged()]
        for connected, wanted in (("false", "pulled"), ("true", "plugged")):
            self.device.set("jacks/0", "Sound.Jack", "Connected", f"boolean:{connected}")
            deadline = time.monotonic() + 30
            while plugged() != wanted and time.monotonic() < deadline:
                time.sleep(0.05)
            seen.append(plugged())
        watching.expect("Headphone Jack")
        watching.kill()
        return seen == ["plugged", "pulled", "plugged"], f"{' → '.join(seen)}, told by events"

    def records_bit_exact(self) -> Seen:
        self.guest.run(f"arecord -q -D hw:0,0 {PLAYED.alsa} -s {2 * PLAYED.rate} /tmp/r.wav && cp /tmp/r.wav /share/recorded.wav")
        recorded = Path(shutil.copy(self.guest.share / "recorded.wav", self.stage.out / "4-recorded.wav"))
        picture(recorded, "what the guest has recorded")
        return Recording.of(recorded).is_part_of(self.music)

    def survives_a_kill(self) -> Seen:
        watching = self.guest.spawn("position 4410")
        self.playing = playing = self.guest.spawn(f"{APLAY} /share/music.wav")
        reach(watching, PLAYED.frames // 2)
        old = self.device.pid()
        killed = time.monotonic()
        old.kill()
        new = self.device.wait_pid(other_than=old, timeout=20)
        back = time.monotonic() - killed
        result = playing.wait(60)
        holds, saw = self.captured("5-killed", "the service was killed in the middle").repeats_nothing(self.music)
        said = result.text.strip() or "aplay noticed nothing"
        return holds and result.code == 0 and new.pid != old.pid, f"on the bus again after {back * 1000:.0f} ms; {said}; {saw}"

    steps = (
        ("the guest sees the card", sees_the_card),
        ("music is played, bit by bit", plays_bit_exact),
        ("volume over D-Bus while it plays", volume_changes_while_playing),
        ("an announcement ducks the music", announcement_ducks_the_music),
        ("headphones pulled and plugged over D-Bus", jack_is_pulled_and_plugged),
        ("the guest records, bit by bit", records_bit_exact),
        ("the service is killed while it plays", survives_a_kill),
    )

    def play_for_long(self) -> tuple[Job, Job]:
        """Start to play the music over and over, and to watch how far it is."""
        watching = self.guest.spawn("position 4410")
        # the samples without the head of the file
        loop = f"while tail -c {PLAYED.frames * PLAYED.channels * 2} /share/music.wav; do :; done"
        self.playing = self.guest.spawn(f"{{ {loop}; }} | {APLAY} -t raw {PLAYED.alsa}")
        return self.playing, watching

    def begin_anew(self) -> None:
        """Leave nothing of a step that is done again."""
        if self.playing:
            end(self.playing)
        self.device.set("streams/0", "Sound.Stream", "Volume", "double:1.0")
        for file in self.stage.out.glob("Music-*.wav"):
            file.unlink()

    def captured(self, name: str, title: str) -> Recording:
        """What the service wrote of the last playback: under this name from now on, with a picture."""
        files = sorted(self.stage.out.glob("Music-*.wav"))
        if len(files) != 1:
            # an under-run begins a new file
            raise TooSlow(f"the guest's stream was interrupted: {len(files)} files")
        target = files[0].rename(self.stage.out / f"{name}.wav")
        picture(target, title)
        return Recording.of(target)


def position(line: str) -> int:
    """The frames in a line of `position`."""
    first = line.split()[:1]
    return int(first[0]) if first and first[0].isdigit() else -1


def reach(watching: Job, frames: int) -> None:
    """Wait until a stream has come so far. One that begins anew never does."""
    try:
        watching.wait_line(lambda line: position(line) >= frames, 60, f"frame {frames}")
    except GuestError as error:
        raise TooSlow(f"the guest's stream did not come to frame {frames}") from error


def end(playing: Job) -> None:
    """End a program that plays, and wait until it has."""
    playing.kill()
    playing.wait(60)


def near(gain: float, wanted: float) -> bool:
    """Whether a measured gain is this one: samples are whole numbers, so it is not exact."""
    return abs(gain - wanted) < 0.01 * wanted
