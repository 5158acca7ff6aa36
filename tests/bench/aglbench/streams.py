"""Streams of everything that codecs can do: those of the services' tests, made from the same list, and files of others.

What the host's software decoders make of them is what a guest's programs are to have too.
"""

import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path

from . import clips
from .checks import must, run
from .clips import Clip, Part

LIST = Path(__file__).resolve().parents[3] / "rust-services/codec/tests/bench/streams.txt"
CODECS = {"hevc": "h265"}
PARSERS = clips.PARSERS | {"mpeg2": "mpegvideoparse", "mpeg4": "mpeg4videoparse"}
DECODERS = clips.DECODERS | {"mpeg2": "avdec_mpeg2video max-threads=1", "mpeg4": "avdec_mpeg4 max-threads=1"}
KINDS = {".264": "h264", ".h264": "h264", ".265": "h265", ".h265": "h265", ".hevc": "h265", ".vp8": "vp8", ".vp9": "vp9"}
LAST_PASS = "multipass-mode=last-pass"


def made(folder: Path, names: list[str]) -> dict[str, Clip]:
    """Streams of the list, each of one size."""
    found = {}
    for name, codec, pieces in _list():
        if name in names:
            units = [unit for piece in pieces for unit in _coded(folder, name, codec, piece)]
            found[name] = _decoded(folder, name, codec, units)
    must(set(found) == set(names), f"not in {LIST}: {set(names) - set(found)}")
    return found


def given(folder: Path, work: Path) -> dict[str, Clip]:
    """Files of others: H.264 and HEVC as byte streams, VP8 and VP9 in IVF. Where there is a file NAME.md5 with the sums of the
    pictures in NV12, one a line, it counts."""
    found = {}
    for file in sorted(folder.iterdir()):
        kind = KINDS.get(file.suffix) or KINDS.get(Path(file.stem).suffix)
        if kind is None or file.suffix in (".md5", ".crc", ".json"):
            continue
        units = list(_ivf(file.read_bytes())) if kind in ("vp8", "vp9") else _units(work, file, kind)
        found[file.name] = _decoded(work, file.name, kind, units)
        sums = file.with_name(file.name + ".md5")
        if sums.exists():
            found[file.name].sums = sums.read_text().split()
    return found


def _list() -> Iterator[tuple[str, str, list[str]]]:
    heads: list[tuple[str, str, list[str]]] = []
    for line in LIST.read_text().splitlines():
        if line.startswith("    "):
            heads[-1][2].append(line.strip())
        elif line and not line.startswith("#"):
            name, codec = line.partition(":")[0].split()
            heads.append((name, CODECS.get(codec, codec), []))
    yield from heads


def _coded(folder: Path, name: str, codec: str, piece: str) -> list[bytes]:
    size, pictures, encoder = piece.split(" ", 2)
    dropped = 0
    if encoder.startswith("drop "):
        dropped, encoder = int(encoder.split(" ", 2)[1]), encoder.split(" ", 2)[2]
    width, height = size.split("x")
    units = folder / f"{name}-{abs(hash(piece))}"
    units.mkdir()
    source = f"videotestsrc pattern=ball num-buffers={pictures} ! video/x-raw,format=I420,width={width},height={height},framerate=30/1"
    passes = [encoder]
    if LAST_PASS in encoder:
        cache = f"multipass-cache-file={units}.passes"
        passes = [encoder.replace(LAST_PASS, f"{word} {cache}") for word in ("multipass-mode=first-pass", LAST_PASS)]
    for word in passes:
        filtered = f"{word} ! identity ! video/x-h264,stream-format=byte-stream,alignment=au" if codec == "h264" else word
        for old in units.iterdir():
            old.unlink()
        run("nice", "gst-launch-1.0", "-q", "-e", *shlex.split(f"{source} ! {filtered} ! multifilesink location={units}/%05d"))
    return [file.read_bytes() for file in sorted(units.iterdir())][dropped:]


def _units(work: Path, file: Path, codec: str) -> list[bytes]:
    units = work / f"{file.name}.units"
    units.mkdir()
    run("nice", "gst-launch-1.0", "-q", "-e", *f"filesrc location={file} ! {PARSERS[codec]} ! multifilesink location={units}/%05d".split())
    return [unit.read_bytes() for unit in sorted(units.iterdir())]


def _ivf(data: bytes) -> Iterator[bytes]:
    at = struct.unpack_from("<H", data, 6)[0]
    while at + 12 <= len(data):
        size = struct.unpack_from("<I", data, at)[0]
        yield data[at + 12:at + 12 + size]
        at += 12 + size


def _decoded(work: Path, name: str, codec: str, units: list[bytes]) -> Clip:
    """With the sums of what the host makes of it."""
    clip = Clip(name, codec, [Part(0, 0)], units, [])
    coded, raw = work / f"{name}.coded", work / f"{name}.i420"
    coded.write_bytes(clip.elementary)
    source = "ivfparse" if clip.suffix == "ivf" else PARSERS[codec].split("!")[0]
    said = run("nice", "gst-launch-1.0", "-v", "-e", *f"filesrc location={coded} ! {source} ! {DECODERS[codec]} ! videoconvert ! "
               f"video/x-raw,format=I420 ! filesink name=out location={raw}".split())
    sizes = set(re.findall(r"out.GstPad:sink: caps = .*width=\(int\)(\d+), height=\(int\)(\d+)", said))
    must(len(sizes) == 1, f"{name} has the sizes {sizes}")
    width, height = (int(word) for word in sizes.pop())
    hashes = clips.frame_hashes(raw.read_bytes(), [Part(width, height)])
    must(len(hashes) > 0, f"the host decodes nothing of {name}")
    clip.parts, clip.hashes = [Part(width, height, len(hashes))], hashes
    return clip

