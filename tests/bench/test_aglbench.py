"""The bench's own judgement, tested without a guest: python3 -m unittest discover tests/bench."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from aglbench import debian, exports, kernel
from aglbench.cache import Cache
from aglbench.cpio import Archive
from aglbench.ktap import parse_ktap
from aglbench.pcm import FORMATS, Journey, Shape, as_in_wav, clip, find, find_in_loop, follow
from aglbench.progress import SetupError
from aglbench.terminal import Screen

STEREO = Shape("S16_LE", 2, 48000)


class Pcm(unittest.TestCase):
    def test_a_clip_is_found_in_every_format_and_a_lost_frame_is_noticed(self):
        for name in FORMATS:
            shape = Shape(name, 2, 48000)
            sent = clip(shape, 1000)
            self.assertEqual(len(sent), shape.bytes(1000), name)
            frame = shape.frame
            self.assertEqual(find(shape, sent, bytes(7 * frame) + sent + bytes(frame)).offset, 7, name)
            self.assertFalse(find(shape, sent, sent[: 500 * frame] + sent[501 * frame :]), name)

    def test_channels_out_of_place_are_noticed(self):
        sent = clip(STEREO, 100)
        self.assertFalse(find(STEREO, sent, bytes(2) + sent + bytes(2)))

    def test_samples_lie_in_a_wav_file_as_the_format_says(self):
        self.assertEqual(as_in_wav(Shape("S8", 1, 8000), b"\x80\x00\x7f"), b"\x00\x80\xff")
        self.assertEqual(as_in_wav(Shape("U16_LE", 1, 8000), b"\x00\x80"), b"\x00\x00")
        self.assertEqual(as_in_wav(Shape("S24_LE", 1, 8000), b"\x01\x00\x80\xff"), b"\x00\x01\x00\x80")
        self.assertEqual(as_in_wav(Shape("U20_3LE", 1, 8000), b"\x01\x00\x00"), b"\x10\x00\x80")
        self.assertEqual(as_in_wav(STEREO, b"1234"), b"1234")

    def test_a_recording_is_found_across_the_end_of_a_loop(self):
        loop = clip(STEREO, 300)
        self.assertEqual(find_in_loop(STEREO, loop[400:] + loop + loop[:40], loop).offset, 100)

    def test_lost_repeated_and_foreign_frames_are_counted(self):
        sent = clip(STEREO, 10000)
        self.assertEqual(follow(STEREO, sent, bytes(400) + sent + bytes(400)), Journey(0, 0, 0))
        self.assertEqual(follow(STEREO, sent, sent[:4000] + bytes(80) + sent[8000:]), Journey(1000, 0, 0))
        self.assertEqual(follow(STEREO, sent, sent[:8000] + sent[4000:]), Journey(0, 1000, 0))
        self.assertEqual(follow(STEREO, sent, sent[:4000] + b"\x01" * 40 + sent[4000:]), Journey(0, 0, 10))


class Terminal(unittest.TestCase):
    def test_characters_lie_where_a_program_puts_them_however_its_writes_are_cut(self):
        written = "\x1b[?1049h\x1b[2;3H\x1b[1mGUEST\x1b[0m\r\nivi\x1b[3;10Hruns"
        for cut in range(len(written)):
            screen = Screen(14, 4)
            screen.write(written[:cut])
            screen.write(written[cut:])
            self.assertEqual(screen.lines(), ["", "  GUEST", "ivi      runs", ""])
        screen.write("\x1b[1;13H1234\x1b[2J")
        self.assertEqual(screen.lines(), [""] * 4)


class Units(unittest.TestCase):
    def test_sound_and_cameras_are_ordered_before_the_rest(self):
        files = Path(__file__).resolve().parents[2] / "meta-agl-virtio/recipes-virt/agl-virtio/files"
        first = "agl-virtio-first.target"
        for unit in files.glob("agl-virtio-*@.service"):
            lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith(("After=", "Before=", "WantedBy=")))
            early = unit.name in ("agl-virtio-media@.service", "agl-virtio-snd@.service")
            self.assertEqual(first in lines.get("Before", "").split(), early, unit.name)
            self.assertEqual(first in lines["WantedBy"].split(), early, unit.name)
            self.assertEqual(first in lines["After"].split(), not early, unit.name)


class Ktap(unittest.TestCase):
    def test_a_report_that_ends_early_or_reports_nothing_is_not_good(self):
        self.assertTrue(parse_ktap(["1..2", "ok 1 a", "ok 2 # SKIP b", "# no such rate"]).good)
        self.assertFalse(parse_ktap(["1..2", "ok 1 a"]).good)
        self.assertFalse(parse_ktap(["1..1", "not ok 1 a"]).good)
        self.assertFalse(parse_ktap(["1..0"]).good)
        self.assertFalse(parse_ktap(["1..1", "ok 1 a", "Bail out! no"]).good)


class Pieces(unittest.TestCase):
    def test_an_archive_is_one_that_cpio_reads(self):
        tree = Archive()
        tree.file("a/b/c", b"content", 0o755)
        tree.link("a/d", "b/c")
        listed = subprocess.run(["cpio", "-itv"], input=tree.bytes(), capture_output=True, check=True).stdout.decode()
        self.assertRegex(listed, r"-rwxr-xr-x .* 7 .* a/b/c\n.*a/d -> b/c")

    def test_a_piece_that_fails_to_build_is_never_taken_for_one(self):
        with tempfile.TemporaryDirectory() as folder:
            cache = Cache(Path(folder))

            def fails(work: Path) -> None:
                (work / "half").touch()
                raise SetupError("no")

            with self.assertRaises(SetupError):
                cache.make("x", {"a": "1"}, fails)
            self.assertFalse(cache.place("x", {"a": "1"}).exists())
            made = cache.make("x", {"a": "1"}, lambda work: (work / "whole").touch())
            self.assertTrue((made / "whole").exists())
            self.assertNotEqual(made, cache.place("x", {"a": "2"}))

    def test_a_fragments_line_that_does_not_survive_is_named(self):
        good = "\n".join(line for file in kernel.fragments() for line in file.read_text().splitlines())
        kernel.check_config(good)
        with self.assertRaisesRegex(SetupError, r"virtio-snd.cfg: CONFIG_SND_VIRTIO=m"):
            kernel.check_config(good.replace("CONFIG_SND_VIRTIO=m", "# CONFIG_SND_VIRTIO is not set"))

    def test_versions_are_ordered_as_debian_orders_them(self):
        key = debian._version_key
        self.assertGreater(key("1:11.1.3+ds-1~bpo13+1"), key("1:10.0.13+ds-0+deb13u1"))
        self.assertLess(key("7.3.4-1~bpo13+1"), key("7.3.4-1"))
        self.assertGreater(key("7.3.10-1"), key("7.3.4-1"))


class Exports(unittest.TestCase):
    def test_what_a_source_exports_is_found_with_licence_and_namespace(self):
        text = b"""EXPORT_SYMBOL(plain); EXPORT_SYMBOL_GPL( spaced );
EXPORT_SYMBOL_NS_GPL(quoted, "SPACE"); EXPORT_SYMBOL_NS(bare, SPACE);
EXPORT_TRACEPOINT_SYMBOL_GPL(event);
EXPORT_SYMBOL_FOR_MODULES(not_for_us, "kvm");
"""
        found = {symbol.name: (symbol.gpl, symbol.namespace) for symbol in exports.of(text)}
        self.assertEqual(found["plain"], (False, ""))
        self.assertEqual(found["spaced"], (True, ""))
        self.assertEqual(found["quoted"], (True, "SPACE"))
        self.assertEqual(found["bare"], (False, "SPACE"))
        self.assertEqual(found["__tracepoint_event"], (True, ""))
        self.assertNotIn("not_for_us", found)

    def test_what_a_macro_exports_is_found_where_it_is_used(self):
        text = b"#define define_level(func, level)\\\n\tvoid func(void) { }\\\n\tEXPORT_SYMBOL(func)\n\ndefine_level(_dev_err, 3);\n"
        self.assertIn("_dev_err", {symbol.name for symbol in exports.of(text)})

    def test_other_architectures_and_programs_export_nothing_to_an_arm64_module(self):
        here = [path for path in ("arch/arm64/lib/copy.S", "arch/arm/lib/copy.S", "tools/lib/x.c", "mm/slub.c") if exports.may_be_in(path)]
        self.assertEqual(here, ["arch/arm64/lib/copy.S", "mm/slub.c"])


if __name__ == "__main__":
    unittest.main()
