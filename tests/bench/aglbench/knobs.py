"""Checks of who is heard: knobs turned over D-Bus and by the guest's mixer, and music that waits for an alarm."""

import contextlib
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from .bus import Bus, DeviceProxy
from .checks import Skipped, must
from .guest import Guest, Job
from .pcm import Shape, wav_data
from .service import Service
from .sound import Bench, Ours, check, reach

SHAPE = Shape("S16_LE", 2, 48000)
# Every sample that is played, and what is left of it 20 dB lower.
LOUD, SOFT = 20000, 2000
# Of a sound in which no frame is like another; a prime number.
FRAMES = 19997
STREAM = "Sound.Stream"
ELEMENT = "name='Multimedia Playback {}'"
JACK = "iface=CARD,name='Headphone Jack'"


@contextlib.contextmanager
def card_on_a_bus(bench: Bench, config: str = "", append: str = "") -> Iterator[tuple[Guest, DeviceProxy]]:
    """A guest whose card is on a bus: the built-in one, or `[devices.card]` of a configuration with `{folder}` in it.

    `append` are further words for the guest's kernel.
    """
    words = ["--output", bench.folder]
    if config:
        file = bench.folder / "guest.toml"
        file.write_text(config.format(folder=bench.folder))
        words = ["--config", file]
    # sockets have room for 107 characters: the check's own folder may be too deep
    with tempfile.TemporaryDirectory(prefix="agl-sound-") as sockets, Bus(bench.folder) as bus:
        command = [bench.kind.program, "--socket", "SOCKET", "--bus", bus.address, *words]
        with Service(command, Path(sockets) / "card", bench.folder / "service.log") as service:
            device = DeviceProxy(bus, guest="guest", device="card" if config else "snd")
            device.wait()
            with Guest([service.socket], log=bench.folder / "kernel.log", append=append) as guest:
                yield guest, device
                must(service.process.poll() is None, f"the service ended by itself: see {service.log}")


def seen(ask: Callable[[], str], wanted: str, what: str) -> None:
    """Wait until an answer has this in it."""
    end = time.monotonic() + 30
    while wanted not in (answer := ask()):
        must(time.monotonic() < end, f"{what}: {wanted} was awaited, there is {answer.strip()}")
        time.sleep(0.02)


def levels(samples: array) -> list[int]:
    """The levels that were held for 50 ms or more, in their order."""
    held = [level for level, run in groupby(samples) if len(list(run)) >= SHAPE.rate // 20 * SHAPE.channels]
    return [level for level, _ in groupby(held)]


@check
def knobs_turn_from_both_sides_while_the_guest_plays(bench: Bench) -> str:
    """Volume, mute and a jack, over D-Bus and by the guest's mixer, while it plays: both sides see it, and it is heard."""
    if not isinstance(bench.kind, Ours):
        raise Skipped("only our service is on D-Bus")
    with card_on_a_bus(bench) as (guest, device):

        def element(name: str) -> Callable[[], str]:
            return lambda: guest.run(f"amixer -c0 cget {name}").text

        def stream(name: str) -> Callable[[], str]:
            return lambda: device.get("streams/0", STREAM, name)

        (guest.share / "loud").write_bytes(array("h", [LOUD] * SHAPE.rate * SHAPE.channels).tobytes())
        watching = guest.spawn("position 2400")
        playing = guest.spawn(
            f"while cat /share/loud; do :; done | aplay -q -D hw:0,0 -t raw -f {SHAPE.format} -c {SHAPE.channels} -r {SHAPE.rate}"
        )
        play_on(watching, playing)
        device.set("streams/0", STREAM, "Volume", "double:0.6")
        seen(element(ELEMENT.format("Volume")), "values=60", "the guest's volume")
        play_on(watching, playing)
        device.set("streams/0", STREAM, "Mute", "boolean:true")
        seen(element(ELEMENT.format("Switch")), "values=off", "the guest's switch")
        play_on(watching, playing)
        for connected, value in (("true", "on"), ("false", "off")):
            device.set("jacks/0", "Sound.Jack", "Connected", f"boolean:{connected}")
            seen(element(JACK), f"values={value}", "the guest's jack")
        guest.run(f"amixer -q -c0 cset {ELEMENT.format('Switch')} on")
        seen(stream("Mute"), "false", "Mute on the bus")
        play_on(watching, playing)
        guest.run(f"amixer -q -c0 cset {ELEMENT.format('Volume')} 100")
        seen(stream("Volume"), "double 1", "Volume on the bus")
        seen(stream("State"), "running", "State on the bus")
        play_on(watching, playing)
        playing.kill()
        playing.wait()
        seen(stream("State"), "released", "State on the bus")
        xruns = device.get("streams/0", STREAM, "Xruns").split()[-1]
    samples = array("h")
    samples.frombytes(wav_data(bench.folder / "Multimedia-1.wav"))
    heard = levels(samples)
    # what the driver adds to its last period is silence
    must([LOUD, SOFT, 0, SOFT, LOUD] == heard[:5], f"the levels that were heard are {heard}")
    return f"heard: {', '.join(map(str, heard[:5]))}; {xruns} under-runs"


def play_on(watching: Job, playing: Job) -> None:
    """Let a quarter of a second more be played."""
    last = next((int(line.split()[0]) for line in reversed(watching.lines) if line[:1].isdigit()), 0)
    reach(watching, playing, last + SHAPE.rate // 4, 60)


WAITING = """
[devices.card]
type = "snd"

[[devices.card.streams]]
name = "Music"
step_back = "pause"
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}

[[devices.card.streams]]
name = "Alarm"
device = 1
role = "emergency"
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}
"""


@check
def music_that_is_paused_for_an_alarm_goes_on_where_it_was(bench: Bench) -> str:
    """Linux' own player waits by poll() while an alarm plays for two seconds; then the very next frame is heard."""
    if not isinstance(bench.kind, Ours):
        raise Skipped("only our service mixes by priority")
    # each frame says where it belongs, and how loud it is: there are as many values as frames
    block = array("h", (10000 + frame * 7 % FRAMES for frame in range(FRAMES) for _ in range(SHAPE.channels)))
    endless = f"while cat {{}}; do :; done | aplay -q {{}} -t raw -f {SHAPE.format} -c {SHAPE.channels} -r {SHAPE.rate}"
    # an emulated guest is slow: its card's buffer shall not run dry meanwhile
    with card_on_a_bus(bench, WAITING, append="virtio_snd.pcm_buffer_ms=1000") as (guest, device):

        def state() -> str:
            return device.get("streams/0", STREAM, "State")

        (guest.share / "music").write_bytes(block.tobytes())
        (guest.share / "alarm").write_bytes(array("h", [LOUD] * len(block)).tobytes())
        guest.run("cp /share/music /share/alarm /tmp")
        watching = guest.spawn("position 2400")
        playing = guest.spawn(endless.format("/tmp/music", "-N -D hw:0,0"))
        play_on(watching, playing)
        at_alarm = guest.spawn("position 2400 card0/pcm1p/sub0")
        alarm = guest.spawn(endless.format("/tmp/alarm", "-D hw:0,1"))
        seen(state, "paused", "State on the bus")
        # longer than Linux lets a player wait in its kernel
        reach(at_alarm, alarm, 2 * SHAPE.rate, 60)
        seen(state, "paused", "State on the bus")
        alarm.kill()
        alarm.wait()
        seen(state, "running", "State on the bus")
        for _ in range(4):
            play_on(watching, playing)
        must(playing.code is None, f"the music has ended: {playing.lines}")
        playing.kill()
        playing.wait()
        xruns = device.get("streams/0", STREAM, "Xruns").split()[-1]
    heard = array("h")
    heard.frombytes(wav_data(bench.folder / "Music-1.wav"))
    music = block * (len(heard) // len(block) + 1)
    touched = [at // SHAPE.channels for at, (one, two) in enumerate(zip(music, heard, strict=False)) if one != two]
    # what the driver adds to its last period is silence
    touched = [frame for frame in touched if frame < len(heard) // SHAPE.channels - SHAPE.rate // 10]
    must(touched, "nothing was faded")
    # two ramps of 10 ms, one right behind the other
    must(touched[-1] - touched[0] < SHAPE.rate // 50, f"frames {touched[0]} to {touched[-1]} are not the music's")
    return f"{len(heard) // SHAPE.channels} frames in their order, {touched[-1] - touched[0] + 1} of them in the two ramps; {xruns} under-runs"
