"""The checks of a sound service by a real guest. Each is a function whose name says what must hold."""

import contextlib
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .checks import CheckFailed, Skipped, must
from .deaths import LIFE, MESSAGES, Deaths, NoSound
from .guest import Guest, GuestError, Job
from .ktap import parse_ktap
from .pcm import FORMATS, Journey, Shape, as_in_wav, clip, find, find_in_loop, follow, wav_data
from .pipewire import PipeWire
from .service import Service

CHANNELS = (1, 2, 6, 8)
RATES = (44100, 48000, 96000)


# -- the services ------------------------------------------------------------------------------------------------------


# A card with every format the specification has, to play into files and record from one.
EVERYTHING = """
[devices.card]
type = "snd"

[[devices.card.streams]]
name = "Play"
formats = [{formats}]
channels_max = 8
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}

[[devices.card.streams]]
name = "Record"
direction = "input"
formats = [{formats}]
channels_max = 8
backend = {{ type = "file", input = "{folder}/input" }}
"""
# As the configuration names them: without the byte order.
FORMAT_NAMES = [name.lower().replace("_3le", "_3").removesuffix("_le") for name in FORMATS]


@dataclass(frozen=True)
class Ours:
    """Our service with its built-in file back end."""

    program: Path
    options: tuple[str, ...] = ()
    crash_points: bool = False
    captures: bool = True

    def command(self, folder: Path, everything: bool, keeper: bool) -> list[str | Path]:
        """How to start it so that playback lands in `folder`, with its own defaults or with all it can do."""
        # the bench may run where a system bus is, and several at once
        command = [self.program, "--bus", "none", *self.options]
        if keeper:
            if self.crash_points:
                plan = folder.resolve() / "plan"
                plan.touch()
                # the sandbox lets nothing kill, not even itself
                command = ["sh", "-c", LIFE, plan, *command, "--no-sandbox"]
            command = [self.program.with_name("agl-virtio-keeper"), "--socket", "SOCKET", "--", *command]
        else:
            command += ["--socket", "SOCKET"]
        if everything:
            (folder / "input").write_bytes(noise())
            config = folder / "guest.toml"
            config.write_text(EVERYTHING.format(folder=folder.resolve(), formats=", ".join(f'"{n}"' for n in FORMAT_NAMES)))
            command += ["--config", config.resolve(), "--device", "card"]
        return command

    def captured(self, folder: Path) -> list[Path]:
        """The files with what was played, oldest first."""
        return sorted(folder.rglob("*.wav"), key=lambda file: [int(n) for n in re.findall(r"\d+", file.stem)])

    @contextlib.contextmanager
    def host(self, folder: Path) -> Iterator[dict[str, str]]:
        """What it needs on the host: nothing. Yields its environment."""
        yield {"AGL_VIRTIO_KEEPER_KILL_AT": MESSAGES} if self.crash_points else {}


@dataclass(frozen=True)
class Peer:
    """The peer, playing to a PipeWire of its own: its null back end is not paced, and no stream survives that."""

    program: Path
    captures: bool = False

    def command(self, folder: Path, everything: bool, keeper: bool) -> list[str | Path]:
        """How to start it."""
        return [self.program, "--socket", "SOCKET", "--backend", "pipewire"]

    @contextlib.contextmanager
    def host(self, folder: Path) -> Iterator[dict[str, str]]:
        """PipeWire with a null sink. Yields the environment to find it."""
        with PipeWire(folder / "pipewire") as server:
            yield server.env


@dataclass(frozen=True)
class Control:
    """QEMU's own sound device, with no service at all: shows whether a check can be passed."""

    captures: bool = False

    def devices(self, cards: int) -> list[str]:
        """QEMU's words for so many cards."""
        words = []
        for card in range(cards):
            words += ["-audiodev", f"none,id=audio{card}", "-device", f"virtio-sound-pci,audiodev=audio{card}"]
        return words


@dataclass
class Bench:
    """What a check gets: a kind of service, and a folder for what it leaves behind."""

    kind: Ours | Peer | Control
    folder: Path
    services: list[Service] = field(default_factory=list)

    @contextlib.contextmanager
    def guest(self, cards: int = 1, everything: bool = False, keeper: bool = False, **options) -> Iterator[Guest]:
        """A guest with so many cards, each a service of its own, with its defaults or with all it can do."""
        with contextlib.ExitStack() as stack:
            if isinstance(self.kind, Control):
                options["devices"] = self.kind.devices(cards)
                yield stack.enter_context(Guest(log=self.folder / "kernel.log", **options))
                return
            # sockets have room for 107 characters: the check's own folder may be too deep
            sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agl-sound-")))
            env = stack.enter_context(self.kind.host(sockets))
            self.services = []
            for card in range(cards):
                folder = self.folder / f"card{card}"
                folder.mkdir(exist_ok=True)
                self.services.append(stack.enter_context(
                    Service(self.kind.command(folder, everything, keeper), sockets / f"card{card}", folder / "service.log", env, folder)
                ))
            paths = [service.socket for service in self.services]
            yield stack.enter_context(Guest(paths, log=self.folder / "kernel.log", **options))
            for service in self.services:
                must(service.process.poll() is None, f"the service ended by itself: see {service.log}")

    def shared(self, guest: Guest, name: str, data: bytes) -> str:
        """Give the guest a file; returns its name there."""
        (guest.share / name).write_bytes(data)
        return f"/share/{name}"


def play(guest: Guest, shape: Shape, file: str, pcm: str = "hw:0,0") -> Job:
    """Start playing a raw file of the guest."""
    return guest.spawn(f"exec aplay -q -D {pcm} -t raw -f {shape.format} -c {shape.channels} -r {shape.rate} {file}")


def abilities(guest: Guest, pcm: str, verb: str) -> dict[str, str]:
    """What a PCM device offers."""
    lines = guest.run(f"abilities {pcm} {verb}").lines
    return {match[1]: match[2].strip() for line in lines if (match := re.match(r"([A-Z_]+):\s*(.*)", line))}


def offered_shapes(guest: Guest, pcm: str, verb: str) -> list[Shape]:
    """Every format a PCM device offers, in the channels and rates of the matrix that it has."""
    offer = abilities(guest, pcm, verb)

    def has(what: str, value: int) -> bool:
        numbers = [int(n) for n in re.findall(r"\d+", offer.get(what, ""))]
        return bool(numbers) and numbers[0] <= value <= numbers[-1]

    formats = offer.get("FORMAT", "").split()
    unknown = [name for name in formats if name not in FORMATS]
    must(not unknown, f"the bench does not know how to make {unknown}")
    # ALSA's programs cannot handle frames that end within a byte: 4-bit samples on one channel
    whole = [(f, c) for f in formats for c in CHANNELS if FORMATS[f][0] * c % 8 == 0]
    shapes = [Shape(f, c, r) for f, c in whole for r in RATES if has("CHANNELS", c) and has("RATE", r)]
    must(bool(shapes), f"nothing of the matrix is offered: {offer}")
    return shapes


def frames_of(shape: Shape) -> int:
    """A short clip, and no whole number of periods."""
    return shape.rate // 5 + 18


def noise() -> bytes:
    """What a guest records: plain samples of any format. A stretch that long recordings go through more than once."""
    return random.Random("input").randbytes(300_000)


def start_streams(bench: Bench, guest: Guest, verb: str, clips: dict[str, tuple[Shape, bytes]], pcm: str = "hw:0,0") -> Job:
    """Start to play or record one short stream after the other."""
    lines = []
    for name, (shape, data) in clips.items():
        if verb == "play":
            bench.shared(guest, f"{name}.in", data)
        lines.append(f"{verb} {name} {pcm} {shape.format} {shape.channels} {shape.rate} {frames_of(shape)}\n")
    bench.shared(guest, f"list-{verb}", "".join(lines).encode())
    return guest.spawn(f"streams /share/list-{verb}")


@dataclass(frozen=True)
class Outcome:
    """How one of many short streams went: what was wrong, or nothing, and at which try."""

    wrong: str
    tries: int


def stream_results(job: Job, clips: dict[str, tuple[Shape, bytes]]) -> dict[str, Outcome]:
    """Wait for the streams; returns how each went, in their order."""
    outcomes = {name: Outcome("was not tried", 0) for name in clips}
    for line in job.wait(60 + 3 * len(clips)).lines:
        if match := re.match(r"result (\S+) (\d+) (\d+) ?(.*)", line):
            good = match[2] == "0" and not match[4].strip()
            outcomes[match[1]] = Outcome("" if good else f"code {match[2]}, {match[4]}", int(match[3]))
    return outcomes


# -- the checks --------------------------------------------------------------------------------------------------------

CHECKS: list[Callable[[Bench], str | None]] = []


def check(function: Callable[[Bench], str | None]) -> Callable[[Bench], str | None]:
    """Add a function to the checks."""
    CHECKS.append(function)
    return function


@check
def the_guest_sees_the_card(bench: Bench) -> str:
    """The card and its PCM devices are there after boot."""
    with bench.guest() as guest:
        playback = guest.run("aplay -l").text
        capture = guest.run("arecord -l").text
        must("card 0" in playback, f"no playback device: {playback}")
        must("card 0" in capture, f"no capture device: {capture}")
        controls = guest.run("amixer -c 0 controls").lines
        offer = abilities(guest, "hw:0,0", "play")
        return f"{len(re.findall('device', playback))} playback, {len(re.findall('device', capture))} capture devices, " \
               f"{len(controls)} controls; {offer.get('FORMAT')}; channels {offer.get('CHANNELS')}; rates {offer.get('RATE')}"


@check
def two_cards_play_and_record_at_once(bench: Bench) -> str:
    """Two services, a stream in each direction on both, for one second."""
    shape = Shape("S16_LE", 2, 48000)
    with bench.guest(cards=2) as guest:
        file = bench.shared(guest, "one.in", clip(shape, 48000))
        began = time.monotonic()
        jobs = [play(guest, shape, file, f"hw:{card},0") for card in (0, 1)]
        jobs += [
            guest.spawn(f"arecord -q -D hw:{card},0 -t raw -f S16_LE -c 2 -r 48000 -d 1 /tmp/{card}.out") for card in (0, 1)
        ]
        for job in jobs:
            result = job.wait(30)
            must(result.code == 0, f"{job.command}: {result.text}")
        return f"one second took {time.monotonic() - began:.1f} s"


@check
def playback_takes_as_long_as_the_sound(bench: Bench) -> str:
    """A stream is paced: as the guest sees it, it advances by its rate, to within 3 %, over some seconds."""
    shape = Shape("S16_LE", 2, 48000)
    with bench.guest() as guest:
        guest.run(f"cp {bench.shared(guest, 'five.in', clip(shape, 5 * shape.rate))} /tmp/five.in")
        watching = guest.spawn("position 2400")
        result = play(guest, shape, "/tmp/five.in").wait(30)
        must(result.code == 0, f"aplay: {result.text}")
        seen = [(int(frames), float(now)) for frames, now in (line.split() for line in watching.wait().lines)]
    must(len(seen) > 4, f"the stream was seen at {seen} only")
    (first, began), (last, ended) = seen[1], seen[-1]
    rate = (last - first) / (ended - began)
    must(abs(rate / shape.rate - 1) < 0.03, f"{rate:.0f} frames a second instead of {shape.rate}")
    return f"{rate:.0f} frames a second over {ended - began:.1f} s"


def _kselftest(bench: Bench, name: str, timeout: float) -> str:
    with bench.guest(limit=timeout + 60) as guest:
        result = guest.run(f"kselftest {name}", timeout, check=False)
    (bench.folder / f"{name}.ktap").write_text(result.text)
    report = parse_ktap(result.lines)
    # pcm-test takes a stream that cannot be opened for one that is not there
    not_opened = [f"{test}: {why}" for test, why in report.skipped.items() if "Failed to get pcm handle" in why]
    must(not not_opened, f"{report}; not opened: {', '.join(not_opened[:3])}")
    must(report.good, f"{report}; failed: {', '.join(report.failed[:8])}; see {bench.folder / f'{name}.ktap'}")
    reasons = sorted(set(report.skipped.values()))
    said = str(report) + (f" ({'; '.join(filter(None, reasons))})" if reasons else "")
    return said


@check
def kselftest_pcm_test_passes(bench: Bench) -> str:
    """The kernel's own pcm-test has no failure."""
    return _kselftest(bench, "pcm-test", 600)


@check
def kselftest_mixer_test_passes(bench: Bench) -> str:
    """The kernel's own mixer-test has no failure."""
    return _kselftest(bench, "mixer-test", 600)


@check
def playback_and_capture_are_bit_exact_in_every_shape(bench: Bench) -> str:
    """Every format offered × 1, 2, 6, 8 channels × 44.1, 48, 96 kHz, both ways at once: what came is what was sent."""
    if not bench.kind.captures:
        raise Skipped("this service keeps nothing that could be compared")
    with bench.guest(everything=True, limit=1200) as guest:
        clips = {f"p{number:03}": (shape, clip(shape, frames_of(shape)))
                 for number, shape in enumerate(offered_shapes(guest, "hw:0,0", "play"))}
        takes = {f"r{number:03}": (shape, b"") for number, shape in enumerate(offered_shapes(guest, "hw:0,0", "record"))}
        # to see what a card offers, aplay has played a little
        before = set(bench.kind.captured(bench.folder / "card0"))
        playing = start_streams(bench, guest, "play", clips)
        recording = start_streams(bench, guest, "record", takes)
        played, recorded = stream_results(playing, clips), stream_results(recording, takes)
        files = [file for file in bench.kind.captured(bench.folder / "card0") if file not in before]
        wrong = [f"{what} {shapes[name][0]}: {outcome.wrong}"
                 for what, shapes, outcomes in (("playing", clips, played), ("recording", takes, recorded))
                 for name, outcome in outcomes.items() if outcome.wrong]

        # the files lie in the order of the streams, one for each; a stream that was tried again has more
        again = sum(outcome.tries - 1 for outcome in (*played.values(), *recorded.values()))
        must(again > 0 or len(files) == len(clips), f"{len(files)} files of {len(clips)} streams; {'; '.join(wrong[:6])}")
        at = 0
        for name, outcome in played.items():
            if outcome.wrong:
                continue
            shape, data = clips[name]
            wanted = as_in_wav(shape, data)
            last = at + 40 if again else at + 1
            right = next((n for n, file in enumerate(files[at:last], at) if find(shape, wanted, wav_data(file))), None)
            if right is None:
                (bench.folder / f"{name}.expected").write_bytes(wanted)
                said = f"{files[at].name}: {find(shape, wanted, wav_data(files[at]))}" if at < len(files) else "no file"
                wrong.append(f"playing {shape} ({name}): {said}")
            else:
                at = right + 1

        for name, (shape, _) in takes.items():
            file = guest.share / f"{name}.out"
            data = file.read_bytes() if file.exists() else b""
            if len(data) != shape.bytes(frames_of(shape)):
                wrong.append(f"recording {shape} ({name}): {len(data)} bytes")
            elif not (match := find_in_loop(shape, data, noise())):
                (bench.folder / f"{name}.recorded").write_bytes(data)
                wrong.append(f"recording {shape} ({name}): {match}")
    must(not wrong, f"{len(wrong)} faults in {len(clips)} + {len(takes)} shapes: {'; '.join(wrong[:6])}")
    return f"{len(clips)} shapes played, {len(takes)} recorded" + (f"; {again} tried again for a slow guest" if again else "")


@check
def the_driver_can_be_unloaded_and_loaded_again(bench: Bench) -> str:
    """The card comes back each time, and plays."""
    shape = Shape("S16_LE", 2, 48000)
    with bench.guest() as guest:
        file = bench.shared(guest, "short.in", clip(shape, 9600))
        said = guest.run("reload 10", 120).lines[-1]
        result = play(guest, shape, file).wait(20)
        must(result.code == 0, f"playing after it: {result.text}")
        return said


@check
def playback_goes_on_after_the_guest_slept(bench: Bench) -> str:
    """The guest suspends and resumes while it plays; the program's stream goes on to its end."""
    shape = Shape("S16_LE", 2, 48000)
    with bench.guest() as guest:
        guest.run(f"cp {bench.shared(guest, 'long.in', clip(shape, 4 * 48000))} /tmp/long.in")
        watching = guest.spawn("position 4800")
        playing = play(guest, shape, "/tmp/long.in")
        reach(watching, playing, 24000)
        guest.wake(guest.sleep())
        result = playing.wait(40)
        must(result.code == 0, f"aplay: {result.text}")
        watching = guest.spawn("position 4800")
        again = play(guest, shape, "/tmp/long.in")
        reach(watching, again, 9600)
        again.kill()
        again.wait(20)
        return " ".join(result.lines) or "aplay noticed nothing"


@check
def a_paused_guest_continues_its_playback(bench: Bench) -> str:
    """The VMM stops the guest's processors while it plays, ten times, and lets them go on: nothing is lost."""
    shape = Shape("S16_LE", 2, 48000)
    sent = clip(shape, 3 * shape.rate)
    with bench.guest(everything=True) as guest:
        guest.run(f"cp {bench.shared(guest, 'long.in', sent)} /tmp/long.in")
        watching = guest.spawn("position 2400")
        playing = play(guest, shape, "/tmp/long.in")
        for step in range(1, 11):
            reach(watching, playing, step * 9600)
            guest.pause()
            guest.resume()
        result = playing.wait(40)
        must(result.code == 0, f"aplay: {result.text}")
    if not bench.kind.captures:
        return "10 pauses"
    journey = follow(shape, sent, b"".join(wav_data(file) for file in bench.kind.captured(bench.folder / "card0")))
    must(journey == Journey(0, 0, 0), str(journey))
    return f"10 pauses, {journey}"


def reach(watching: Job, playing: Job, frames: int, timeout: float = 20.0) -> None:
    """Wait until a stream has come to this frame, as the guest's ALSA counts them; `watching` runs `position`."""
    try:
        watching.wait_line(lambda line: line[:1].isdigit() and int(line.split()[0]) >= frames, timeout)
    except GuestError as error:
        with contextlib.suppress(GuestError):
            playing.wait(1.0)
        state = "it still runs" if playing.code is None else f"it ended with {playing.code}: {' '.join(playing.lines)}"
        said = watching.lines[-1] if watching.lines else "nothing"
        raise CheckFailed(f"the stream did not reach frame {frames}; last seen: {said}; {state}") from error


KILLS = int(os.environ.get("AGL_BENCH_KILLS", "30"))


@check
def sound_is_back_after_the_service_was_killed(bench: Bench) -> str:
    """Under its keeper the service dies again and again while it plays and records; the guest hears a pause."""
    if not isinstance(bench.kind, Ours):
        raise Skipped("only our service has a keeper")
    said = []
    for event_idx in (True, False):
        part = Bench(bench.kind, bench.folder / ("event-idx" if event_idx else "no-event-idx"))
        part.folder.mkdir()
        said.append(f"{'with' if event_idx else 'without'} EVENT_IDX {die_and_come_back(part, KILLS // 2, event_idx)}")
    return "; ".join(said)


# Linux gives a stream up when nothing comes for 1.1 times its buffer: a long one, for two or three deaths in a row.
BUFFER_MS = 1000


def die_and_come_back(bench: Bench, kills: int, event_idx: bool) -> str:
    """Let the service die so often while a guest plays and records; what was heard of it."""
    shape = Shape("S16_LE", 2, 48000)
    seconds = 10
    sent = clip(shape, seconds * shape.rate)
    folder = bench.folder / "card0"
    stream = f"-q -D hw:0,0 -t raw -f S16_LE -c 2 -r 48000 --buffer-time={BUFFER_MS * 1000} --period-time=50000"
    journeys, given_up = [], 0
    patience = f"virtio_snd.pcm_buffer_ms={BUFFER_MS}"
    with bench.guest(everything=True, keeper=True, limit=120 + 4 * kills, event_idx=event_idx, append=patience) as guest:
        deaths = Deaths(bench.services[0], folder, folder / "plan" if bench.kind.crash_points else None)
        guest.run(f"cp {bench.shared(guest, 'long.in', sent)} /tmp/long.in")
        while len(deaths.pauses) < kills:
            before = set(bench.kind.captured(folder))
            watching = guest.spawn("position 4800")
            playing = guest.spawn(f"exec aplay {stream} /tmp/long.in")
            recording = guest.spawn(f"exec arecord {stream} -s {len(sent) // 4} /tmp/long.out")
            hearing = guest.spawn("position 2400 card0/pcm0c/sub0")
            # the last seconds stay: a stream that has ended cannot come back
            while len(deaths.pauses) < kills and max(come_to(watching), come_to(hearing)) < (seconds - 2) * shape.rate:
                # Both directions shall have gone on since the last death. What is in flight at one makes the position of
                # playback leap.
                try:
                    for job in (watching, hearing):
                        further(job, 2)
                    deaths.next()
                except (GuestError, NoSound) as error:
                    must(isinstance(error, GuestError) or playing.code is not None or recording.code is not None, str(error))
                    break  # a stream has ended; why is asked below
            results = [job.wait(seconds + 40) for job in (playing, recording)]
            files = [file for file in bench.kind.captured(folder) if file not in before]
            journey = follow(shape, sent, b"".join(wav_data(file) for file in files))
            if any(result.code or result.lines for result in results):
                # a guest that does not run for a second finds its own streams late; one that hears nothing always does
                given_up += 1
                must(given_up <= 2 + kills // 50, f"after {len(deaths.pauses)} deaths, the longest pause "
                     f"{max(deaths.pauses, default=0) * 1000:.0f} ms: {' '.join(result.text.strip() for result in results)}")
                journey = Journey(0, journey.repeated, journey.foreign)
            journeys.append(journey)
        # a chain that comes back twice, or never, is what Linux complains of
        complaints = [line for line in guest.run("dmesg").lines
                      if re.search(r"is not a head|virtio_snd virtio\d+:.*(SID|fail|time)", line)]
        by_the_keeper = deaths.by_the_keeper()
    must(not complaints, f"the guest's driver complains: {complaints[:3]}")
    repeated, foreign = sum(j.repeated for j in journeys), sum(j.foreign for j in journeys)
    must(not repeated and not foreign, "; ".join(map(str, journeys)))
    all_deaths = len(deaths.pauses) + deaths.injected + by_the_keeper
    pauses = sorted(deaths.pauses)
    said = f"{all_deaths} deaths, {deaths.injected} at points inside, {by_the_keeper} in messages: back after " \
           f"{pauses[len(pauses) // 2] * 1000:.0f} ms (median), {pauses[-1] * 1000:.0f} ms at worst; 0 frames repeated, " \
           f"{sum(j.lost for j in journeys) / all_deaths / 48:.1f} ms of sound lost each" \
           + (f"; {given_up} of {len(journeys)} streams given up by a slow guest" if given_up else "")
    must(pauses[len(pauses) // 2] <= 0.5, said)
    return said


def come_to(watching: Job) -> int:
    """The frame that a stream has come to; `watching` runs `position`."""
    return int(watching.lines[-1].split()[0]) if watching.lines else 0


def further(watching: Job, lines: int) -> None:
    """Wait until a job has written so many more lines."""
    wanted = len(watching.lines) + lines
    watching.wait_line(lambda _: len(watching.lines) >= wanted, 10, "further lines")
