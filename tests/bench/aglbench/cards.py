"""Checks of cards that a configuration describes: substreams, channel maps, a guest that never kicks."""

import re

from .checks import Skipped, must
from .knobs import card_on_a_bus
from .pcm import Shape, clip, find, wav_data
from .sound import Bench, Ours, check, play

# Two substreams of one PCM device, and another device with a channel map of its own.
SHARED = """
[devices.card]
type = "snd"
chmaps = [{{ device = 1, positions = ["FL", "FR", "LFE"] }}]

[[devices.card.streams]]
name = "First"
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}

[[devices.card.streams]]
name = "Second"
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}

[[devices.card.streams]]
name = "Other"
device = 1
channels_min = 3
channels_max = 3
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}
"""
POLLED = """
[devices.card]
type = "snd"
polling = true

[[devices.card.streams]]
name = "Music"
backend = {{ type = "file", path = "{folder}/{{stream}}-{{n}}.wav" }}
"""


@check
def streams_that_share_a_device_are_its_substreams(bench: Bench) -> str:
    """Two streams on one PCM device play at once, each into its own file, beside a device with its own channel map."""
    if not isinstance(bench.kind, Ours):
        raise Skipped("only our service is configured")
    stereo, three = Shape("S16_LE", 2, 48000), Shape("S16_LE", 3, 48000)
    clips = {"First": (stereo, "hw:0,0,0", 1), "Second": (stereo, "hw:0,0,1", 2), "Other": (three, "hw:0,1", 3)}
    with card_on_a_bus(bench, SHARED) as (guest, _):
        listing = guest.run("aplay -l").text
        must("Subdevices: 2/2" in listing and "device 1" in listing, f"two substreams and two devices were awaited: {listing}")
        maps = re.findall(r"container\n\s*\| chmap-fixed=(\S+)", guest.run("amixer -c0 contents").text)
        must("FL,FR,LFE" in maps, f"the channel map is not there, there are {maps}")
        jobs = []
        for name, (shape, pcm, seed) in clips.items():
            jobs.append(play(guest, shape, bench.shared(guest, name, clip(shape, 48000, seed)), pcm))
        for job in jobs:
            result = job.wait(60)
            must(result.code == 0, f"{job.command}: {result.text}")
    for name, (shape, pcm, seed) in clips.items():
        match = find(shape, clip(shape, 48000, seed), wav_data(bench.folder / f"{name}-1.wav"))
        must(bool(match), f"{pcm}: {match}")
    return f"2 substreams and a device of 3 channels at once, bit by bit; map {', '.join(maps)}"


@check
def a_guest_that_polls_plays_without_a_kick(bench: Bench) -> str:
    """MSG_POLLING, where it is configured: the guest's driver takes it, never kicks tx, and plays to the end."""
    if not isinstance(bench.kind, Ours):
        raise Skipped("only our service is configured")
    shape = Shape("S16_LE", 2, 48000)
    sent = clip(shape, 2 * shape.rate)
    with card_on_a_bus(bench, POLLED) as (guest, device):
        result = play(guest, shape, bench.shared(guest, "two", sent)).wait(60)
        must(result.code == 0, f"aplay: {result.text}")
        said = device.get("", "Device", "Statistics")
        queues = [dict(re.findall(r'string "(\w+)"\s+uint64 (\d+)', queue)) for queue in said.split("array [")[2:]]
    tx = queues[2]
    # QEMU kicks each queue once when it starts it
    must(int(tx["completed"]) > 10 and int(tx["kicks"]) <= 1, f"tx: {tx}")
    match = find(shape, sent, wav_data(bench.folder / "Music-1.wav"))
    must(bool(match), str(match))
    return f"{tx['completed']} buffers; {tx['kicks']} kick, by the VMM at the start"
