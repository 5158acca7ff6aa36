# SPDX-License-Identifier: Apache-2.0
"""The demo's own judgement: what it calls equal, repeated, lost or softer, and what it reads in the guest's words."""

import contextlib
import io
import random
import struct
import sys
import tempfile
import tomllib
import unittest
from array import array
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

DEMO = Path(__file__).resolve().parent
sys.path[:0] = [str(DEMO.parent / "bench"), str(DEMO)]

import pictures  # noqa: E402 (the path above comes first)
from aglbench.camera_picture import Look, Shape, picture, verify  # noqa: E402
from aglbench.checks import CheckFailed, Skipped  # noqa: E402
from cards import can, codec, kernel, scmi  # noqa: E402
from cluster import DEVICES, TEMPLATE  # noqa: E402
from music import PLAYED, Recording  # noqa: E402
from report import Row, Verdict, summary, table  # noqa: E402
from stage import TRIES, Card, Seen, TooSlow, perform  # noqa: E402


def noise(frames: int) -> array:
    """Frames that are all different."""
    source = random.Random("demo")
    return array("h", (source.randint(-20000, 20000) for _ in range(frames * PLAYED.channels)))


class Recordings(unittest.TestCase):
    """Recordings beside an original of one second."""

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.sent = noise(PLAYED.rate)
        data = self.sent.tobytes()
        self.original = Path(self.folder.name) / "original.wav"
        shape = struct.pack("<HHIIHH", 1, PLAYED.channels, PLAYED.rate, PLAYED.rate * 2 * PLAYED.channels, 2 * PLAYED.channels, 16)
        chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(shape)) + shape + b"data" + struct.pack("<I", len(data)) + data
        self.original.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)

    def cut(self, *spans: tuple[int, int]) -> Recording:
        """A recording of these frames of the original, one span after the other."""
        samples = array("h")
        for first, last in spans:
            samples += self.sent[first * PLAYED.channels:last * PLAYED.channels]
        return Recording(samples)

    def test_only_the_same_samples_are_exact(self) -> None:
        whole = self.cut((0, PLAYED.rate))
        self.assertTrue(whole.is_exactly(self.original)[0])
        self.assertTrue(Recording(whole.samples + array("h", [0] * 40)).is_exactly(self.original)[0])
        self.assertFalse(self.cut((0, PLAYED.rate - 1)).is_exactly(self.original)[0])
        whole.samples[4 * 77] ^= 1
        self.assertEqual(whole.is_exactly(self.original), (False, "44100 frames, frame 77 is the first that differs"))

    def test_a_part_may_go_through_the_end_but_not_between_frames(self) -> None:
        self.assertTrue(self.cut((40000, 44100), (0, 300)).is_part_of(self.original)[0])
        shifted = Recording(self.sent[1:4001])
        self.assertFalse(shifted.is_part_of(self.original)[0])
        self.assertFalse(Recording(array("h", [0] * 400)).is_part_of(self.original)[0])

    def test_what_is_missing_is_counted_and_what_is_repeated_is_seen(self) -> None:
        self.assertEqual(self.cut((0, 1000), (1441, 44100)).repeats_nothing(self.original), (True, "10.0 ms of sound lost, nothing repeated"))
        self.assertEqual(self.cut((0, 1000), (900, 44100)).repeats_nothing(self.original), (False, "frame 1000 is out of order"))

    def test_gains_are_measured_piece_by_piece_through_the_end(self) -> None:
        played = self.sent + self.sent
        soft = array("h", (sample // 10 if at > len(self.sent) else sample for at, sample in enumerate(played)))
        gains = Recording(soft).gains(self.original)
        self.assertEqual(gains[0], 1.0)
        self.assertAlmostEqual(gains[-1], 0.1, 2)


class Words(unittest.TestCase):
    """What programs of the guest and the bus write."""

    def test_a_frame_is_named_as_cansend_names_it(self) -> None:
        self.assertEqual(can.parse(struct.pack("=IB3x8s", 0x123, 4, b"\xde\xad\xbe\xef")), "123#DEADBEEF")
        self.assertEqual(can.parse(struct.pack("=IB3x8s", 0x98FEF100, 1, b"\x07")), "18FEF100#07")
        self.assertEqual(can.parse(struct.pack("=IBB2x64s", 0x055, 2, 4, b"\xa5\xa5")), "055##0A5A5")

    def test_rates_are_read_from_the_kernels_table_of_clocks(self) -> None:
        table_ = """                                 enable  prepare  protect                                duty  hardware
   clock                          count    count    count        rate   accuracy phase  cycle    enable   consumer
---------------------------------------------------------------------------------------------------------
 apb-pclk                            1       1        0        24000000          0     0  50000         Y   deviceless
 pll                                 0       0        0        594000000         0     0  50000         N   deviceless
    pixel                            0       0        0        74250000          0     0  50000         N   deviceless
"""
        self.assertEqual(scmi.clocks_of(table_), {"apb-pclk": 24000000, "pll": 594000000, "pixel": 74250000})
        self.assertEqual(scmi.clocks_of(""), {})

    def test_only_resources_of_the_kind_are_read_from_the_bus(self) -> None:
        told = """array [
         struct { string "clock"
            string "pixel"
            string "off"
            int64 74250000
            array [ ] }
         struct { string "performance"
            string "cpu"
            string "level 500"
            int64 500
         }"""
        self.assertEqual(scmi.resources_of(told, "clock"), {"pixel": 74250000})
        self.assertEqual(scmi.resources_of(told, "performance"), {"cpu": 500})
        self.assertEqual(scmi.resources_of(told, "sensor"), {})

    def test_a_kernel_complains_of_faults_and_not_of_a_slow_machine(self) -> None:
        fine = "[ 1.0] Linux version 7.3.0\n[ 2.0] BUG: workqueue lockup - pool cpus=0\n[ 3.0] watchdog: BUG: soft lockup - CPU#0\n"
        self.assertEqual(kernel.complaints(fine), [])
        for line in ("BUG: KASAN: use-after-free", "WARNING: CPU: 0 PID: 9 at core.c:1", "Internal error: Oops: 96000004", "refcount_t: underflow"):
            self.assertEqual(kernel.complaints(f"{fine}[ 4.0] {line}\nmore\n"), [f"[ 4.0] {line}"])


class Video(unittest.TestCase):
    """Frames and pictures."""

    def test_a_clip_is_the_same_only_where_every_frame_is(self) -> None:
        self.assertTrue(codec.compared(["a", "b"], ["a", "b"])[0])
        self.assertEqual(codec.compared(["a", "x"], ["a", "b"]), (False, "2 frames of 2, 1 of them the same"))
        self.assertEqual(codec.compared(["a"], ["a", "b"]), (False, "1 frames of 2, 1 of them the same"))
        self.assertFalse(codec.compared(["a", "b", "c"], ["a", "b"])[0])
        self.assertFalse(codec.compared([], [])[0])

    def test_what_was_encoded_must_be_all_there_and_near_to_what_it_was(self) -> None:
        wanted = random.Random("demo").randbytes(3000)
        near, far = bytes(value ^ 1 for value in wanted), bytes(value ^ 64 for value in wanted)
        self.assertEqual(codec.judged(60_000, near, wanted), (True, "30 frames, 48.1 dB as the host decodes them, 400 kbit/s"))
        self.assertFalse(codec.judged(60_000, far, wanted)[0])
        self.assertEqual(codec.judged(60_000, near[:-1], wanted), (False, "2999 bytes of pictures, 3000 wanted"))

    def test_a_camera_must_be_right_to_the_byte_and_in_order(self) -> None:
        shape = Shape("NV12", 320, 240)
        frames = [picture(shape, number, Look()) for number in (7, 8)]
        self.assertEqual(verify(shape, frames[0] + frames[1]), [7, 8])
        self.assertRaises(CheckFailed, verify, shape, frames[1] + frames[0])
        self.assertRaises(CheckFailed, verify, shape, frames[0][:-1])
        wrong = bytearray(frames[0])
        wrong[1000] ^= 1
        self.assertRaises(AssertionError, verify, shape, bytes(wrong))

    def test_a_frame_becomes_a_picture_of_its_size(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "frame.png"
            pictures.png(picture(Shape("NV12", 320, 240), 7, Look()), ("nv12", 320, 240), target)
            self.assertEqual(pictures.dimensions(target), (320, 240))
            target.write_bytes(b"no picture")
            self.assertEqual(pictures.dimensions(target), (0, 0))


class Steps(unittest.TestCase):
    """What becomes of a step."""

    def perform(self, do: Callable[[Card], Seen]) -> tuple[Row, Card]:
        card = Card(SimpleNamespace(guest=None))
        card.steps = (("a step", do),)
        with contextlib.redirect_stdout(io.StringIO()):
            return perform(card)[0], card

    def test_what_is_seen_is_said_and_what_is_raised_fails(self) -> None:
        self.assertEqual(self.perform(lambda card: (True, "it"))[0], Row("", "a step", "it", Verdict.OK))
        self.assertEqual(self.perform(lambda card: (False, "it"))[0].verdict, Verdict.FAILED)

        def fails(card: Card) -> Seen:
            raise CheckFailed("why")

        self.assertEqual(self.perform(fails)[0], Row("", "a step", "CheckFailed: why", Verdict.FAILED))

    def test_what_this_machine_lacks_is_no_fault(self) -> None:
        def lacks(card: Card) -> Seen:
            raise Skipped("no compiler")

        self.assertEqual(self.perform(lacks)[0], Row("", "a step", "no compiler", Verdict.SKIPPED))

    def test_a_guest_that_was_too_slow_has_another_try_but_not_for_ever(self) -> None:
        tried = []

        def slow(card: Card) -> Seen:
            tried.append(card)
            if len(tried) < TRIES:
                raise TooSlow("gaps")
            return True, "it"

        self.assertEqual(self.perform(slow)[0].verdict, Verdict.OK)
        tried.clear()

        def never(card: Card) -> Seen:
            tried.append(card)
            raise TooSlow("gaps")

        self.assertEqual(self.perform(never)[0], Row("", "a step", "gaps", Verdict.FAILED))
        self.assertEqual(len(tried), TRIES)


class Report(unittest.TestCase):
    """The table, and the guest's file."""

    def test_the_table_fits_a_terminal(self) -> None:
        rows = [Row("camera", "a check with a name that is longer than its column", "what was seen " * 9, verdict) for verdict in Verdict]
        self.assertLessEqual(max(map(len, table(rows).splitlines())), 80)

    def test_the_summary_counts_only_what_holds(self) -> None:
        row = {verdict: Row("", "", "", verdict) for verdict in Verdict}
        self.assertEqual(summary([row[Verdict.OK], row[Verdict.FAILED]]), "1 of 2 hold.")
        self.assertEqual(summary(list(row.values())), "1 of 3 hold, 1 skipped.")

    def test_the_guests_file_describes_every_device_that_is_started(self) -> None:
        described = tomllib.loads(TEMPLATE.read_text())["devices"]
        self.assertEqual({name: table_["type"] for name, table_ in described.items()}, {name: service for name, (service, _) in DEVICES.items()})


if __name__ == "__main__":
    unittest.main()
