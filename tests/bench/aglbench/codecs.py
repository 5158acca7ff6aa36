"""Codecs of a guest, whichever driver they are behind: v4l2-ctl, v4l2-compliance, GStreamer and FFmpeg at work on clips."""

import hashlib
import re
from pathlib import Path

from . import clips
from .checks import CheckFailed, must
from .clips import Clip, Part
from .guest import Guest, Job, Result

# Buffers of another driver, to be imported.
TEST_CAMERA = """test -e /dev/test-camera || { modprobe vivid n_devs=1 node_types=0x1 no_error_inj=1 &&
ln -s /dev/$(cd /sys/class/video4linux && grep -l ^vivid- */name | cut -d/ -f1) /dev/test-camera &&
media v4l2-ctl -d /dev/test-camera --set-fmt-video width=1280,height=720; }"""
# Of v4l2-compliance's streaming tests, one of each kind of memory.
KINDS = ("MMAP (select, REQBUFS)", "USERPTR (select)", "DMABUF (select)")
FOURCC = {"h264": "H264", "h265": "HEVC", "vp8": "VP80", "vp9": "VP90", "mpeg2": "MPG2", "mpeg4": "MPG4"}


class Programs:
    """The media programs of a guest. Clips are in its /clips, which these programs see as /guest/clips."""

    def __init__(self, guest: Guest):
        self.guest = guest

    def run(self, command: str, timeout: float = 600.0) -> Result:
        """One of the media programs; whatever comes of it. On a busy machine a large one takes minutes to begin."""
        return self.guest.run(f"media {command}", timeout, check=False)

    def spawn(self, command: str) -> Job:
        """One of them, and go on."""
        return self.guest.spawn(f"media {command}")

    def fetch(self, path: str) -> bytes:
        """A file of the guest."""
        self.guest.run(f"cp {path} /share/fetched && rm {path}")
        return (self.guest.share / "fetched").read_bytes()


def files(found: dict[str, Clip], raw: Path) -> dict[str, bytes | Path]:
    """Clips and a moving picture, as the guest's programs want them."""
    result: dict[str, bytes | Path] = {"clips/raw": raw}
    for clip in found.values():
        result[f"clips/{clip.name}.units"] = clip.with_headers
        result[f"clips/{clip.name}.{clip.suffix}"] = clip.elementary
    return result


def ctl(clip: Clip, device: str, name: str = "out") -> str:
    """How v4l2-ctl, whose start is quick, decodes to NV12 in /tmp/NAME."""
    return (f"v4l2-ctl -d {device} --set-fmt-video-out pixelformat={FOURCC[clip.codec]} --stream-mmap --stream-out-mmap "
            f"--stream-from-hdr /guest/clips/{clip.name}.units --stream-to /tmp/{name} --stream-poll")


def i420(nv12: bytes, part: Part) -> list[str]:
    """The hashes of frames in NV12 without padding, as those of a clip are."""
    luma, size, result = part.width * part.height, clips.tight_size(part.width, part.height), []
    for at in range(0, len(nv12) - size + 1, size):
        pairs = nv12[at + luma:at + size]
        result.append(hashlib.md5(nv12[at:at + luma] + pairs[0::2] + pairs[1::2]).hexdigest())
    if len(nv12) % size:
        result.append(f"and {len(nv12) % size} bytes more")
    return result


def nv12_sums(nv12: bytes, part: Part) -> list[str]:
    """The hashes of frames in NV12 as they are."""
    size = clips.tight_size(part.width, part.height)
    return [hashlib.md5(nv12[at:at + size]).hexdigest() for at in range(0, len(nv12), size)]


def same(found: list[str], clip: Clip, who: str, text: str) -> str:
    """Each frame must be the host's."""
    wrong = [number for number, (here, there) in enumerate(zip(found, clip.hashes)) if here != there]
    must(not wrong and len(found) == len(clip.hashes),
         f"{who} of {clip.name}: {len(found)} frames, {len(clip.hashes)} wanted, these differ: {wrong[:10]}\n{text[-1500:]}")
    return f"{clip.name} {len(found)}"


def compliance(programs: Programs, device: str, more: str, report: Path, kinds: tuple[str, ...] = KINDS) -> str:
    """v4l2-compliance, streaming by these kinds of memory included: no failure, and nothing left out."""
    programs.guest.run(TEST_CAMERA)
    result = programs.run(f"v4l2-compliance -d {device} -s10 -e /dev/test-camera {more} 2>&1", 300)
    report.write_text(result.text)
    total = re.search(r"Total for .*: (\d+), Succeeded: (\d+), Failed: (\d+), Warnings: (\d+)", result.text)
    failed = [line.strip() for line in result.text.splitlines() if "FAIL" in line or "fail:" in line]
    must(total is not None and total[3] == "0" and total[1] == total[2], "\n".join([total[0] if total else result.text[-800:], *failed]))
    for kind in kinds:
        must(f"test {kind}: OK" in result.text, f"{kind} was not tested")
    return f"{total[2]} of {total[1]}, {total[4]} warnings"


def v4l2_ctl(programs: Programs, clip: Clip, device: str) -> str:
    """v4l2-ctl decodes a clip of one size."""
    result = programs.run(ctl(clip, device))
    return same(i420(programs.fetch("/tmp/out"), clip.parts[0]), clip, "v4l2-ctl", result.text)


def streams(programs: Programs, found: dict[str, Clip], device: str) -> str:
    """v4l2-ctl decodes streams as the host does, and as those who gave them say."""
    wrong, others = [], 0
    for clip in found.values():
        result = programs.run(ctl(clip, device))
        pictures = programs.fetch("/tmp/out")
        try:
            same(i420(pictures, clip.parts[0]), clip, "v4l2-ctl", result.text)
        except CheckFailed as error:
            wrong.append(str(error))
        if clip.sums:
            others += 1
            if clip.sums != nv12_sums(pictures, clip.parts[0]):
                wrong.append(f"{clip.name} is not as those say who gave it")
    must(not wrong, "\n".join(wrong))
    return f"{len(found)} streams, {sum(clip.parts[0].frames for clip in found.values())} frames" + (f"; {others} as others say" if others else "")


def gstreamer(programs: Programs, clip: Clip) -> str:
    """GStreamer's decoder of the guest's only device for this codec decodes a clip."""
    source = "ivfparse" if clip.suffix == "ivf" else f"{clip.codec}parse"
    result = programs.run(f"gst-launch-1.0 -q filesrc location=/guest/clips/{clip.name}.{clip.suffix} ! {source} ! v4l2{clip.codec}dec ! "
                          "video/x-raw,format=NV12 ! videoconvert ! video/x-raw,format=I420 ! filesink location=/tmp/out")
    must(result.code == 0, f"{clip.name}: ended with {result.code}: {result.text[-1500:]}")
    return same(clips.frame_hashes(programs.fetch("/tmp/out"), clip.parts), clip, "GStreamer", result.text)


def ffmpeg(programs: Programs, clip: Clip) -> str:
    """FFmpeg's v4l2m2m decoder decodes a clip of one size."""
    codec = {"h265": "hevc"}.get(clip.codec, clip.codec)
    part = clip.parts[0]
    # FFmpeg asks for no rectangle: it takes the whole picture buffer
    result = programs.run(f"ffmpeg -hide_banner -loglevel warning -y -c:v {codec}_v4l2m2m -i /guest/clips/{clip.name}.{clip.suffix} -fps_mode passthrough "
                          f"-vf format=yuv420p,crop={part.width}:{part.height}:0:0 -f framemd5 /tmp/out")
    must(result.code == 0, f"{clip.name}: ended with {result.code}: {result.text[-1500:]}")
    found = re.findall(r"^\d.*, *([0-9a-f]{32})$", programs.fetch("/tmp/out").decode(), re.MULTILINE)
    return same(found, clip, "FFmpeg", result.text)


def decoded(stream: bytes, raw: bytes, work: Path, codec: str = "h264") -> float:
    """What the host makes of a stream that was made of `raw`: all its pictures, so close to it, in dB."""
    coded = work / "encoded"
    coded.write_bytes(stream)
    pictures = clips.decoded(coded, codec)
    must(len(pictures) == len(raw), f"{len(pictures)} bytes of pictures, {len(raw)} wanted")
    quality = clips.psnr(pictures, raw)
    must(quality > 30, f"only {quality:.1f} dB")
    return quality


def gstreamer_encodes(programs: Programs, raw: bytes, part: Part, bitrate: int, work: Path) -> str:
    """v4l2h264enc: the host decodes all frames, close to what they were, at the bit rate asked for."""
    result = programs.run(f"gst-launch-1.0 -q filesrc location=/guest/clips/raw ! rawvideoparse format=i420 width={part.width} height={part.height} "
                          f"framerate={clips.RATE}/1 ! v4l2h264enc extra-controls=controls,video_bitrate={bitrate} ! "
                          "'video/x-h264,profile=main,level=(string)4' ! filesink location=/tmp/out")
    must(result.code == 0, result.text[-1500:])
    stream = programs.fetch("/tmp/out")
    quality = decoded(stream, raw, work)
    rate = len(stream) * 8 * clips.RATE / part.frames
    must(abs(rate - bitrate) < bitrate / 10, f"{rate:.0f} bit/s, asked for {bitrate}")
    return f"{part.frames} frames, {quality:.1f} dB, {rate / 1000:.0f} kbit/s of {bitrate // 1000}"


def gstreamer_encodes_hevc(programs: Programs, raw: bytes, part: Part, bitrate: int, work: Path) -> str:
    """v4l2h265enc of the profile Main: the host decodes all frames, close to what they were."""
    result = programs.run(f"gst-launch-1.0 -q filesrc location=/guest/clips/raw ! rawvideoparse format=i420 width={part.width} height={part.height} "
                          f"framerate={clips.RATE}/1 ! v4l2h265enc extra-controls=controls,video_bitrate={bitrate} ! video/x-h265,profile=main ! "
                          "filesink location=/tmp/out")
    must(result.code == 0, result.text[-1500:])
    return f"{part.frames} frames, {decoded(programs.fetch('/tmp/out'), raw, work, 'h265'):.1f} dB"


def ffmpeg_encodes(programs: Programs, raw: bytes, part: Part, bitrate: int, work: Path) -> str:
    """h264_v4l2m2m asks for key frames at 13 and 31, and they are there."""
    # With its default of 4 capture buffers FFmpeg loses what is left of the stream at its end, when all 4 wait to be written.
    result = programs.run(f"ffmpeg -hide_banner -loglevel warning -y -f rawvideo -pix_fmt yuv420p -s {part.width}x{part.height} -r {clips.RATE} "
                          f"-i /guest/clips/raw -pix_fmt nv12 -c:v h264_v4l2m2m -num_capture_buffers 32 -b:v {bitrate} -g 1000 -bf 0 "
                          "-force_key_frames 'expr:eq(n,0)+eq(n,13)+eq(n,31)' -f h264 /tmp/out")
    must(result.code == 0, result.text[-1500:])
    stream = programs.fetch("/tmp/out")
    keys = clips.key_frames(stream)
    must(keys == [0, 13, 31], f"key frames at {keys}")
    return f"{keys}, {decoded(stream, raw, work):.1f} dB"
