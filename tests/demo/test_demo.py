# SPDX-License-Identifier: Apache-2.0
"""The demo's own judgement: what it calls equal, repeated, lost or softer."""

import random
import struct
import sys
import tempfile
import unittest
from array import array
from pathlib import Path

DEMO = Path(__file__).resolve().parent
sys.path[:0] = [str(DEMO.parent / "bench"), str(DEMO)]

from music import PLAYED, Recording  # noqa: E402 (the path above comes first)
from report import Row, table  # noqa: E402


def noise(frames: int) -> array:
    """Frames that are all different."""
    source = random.Random("demo")
    return array("h", (source.randint(-20000, 20000) for _ in range(frames * PLAYED.channels)))


class Judgement(unittest.TestCase):
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

    def test_the_table_fits_a_terminal(self) -> None:
        rows = [Row("sound", "a check with a name that is longer than its column", "what was seen " * 9, False)]
        self.assertLessEqual(max(map(len, table(rows).splitlines())), 80)


if __name__ == "__main__":
    unittest.main()
