# SPDX-License-Identifier: Apache-2.0
"""Frames of video as pictures for a person."""

import tempfile
from pathlib import Path

from aglbench.checks import run


def png(frame: bytes, shape: tuple[str, int, int], target: Path) -> None:
    """Write a frame as a PNG. The shape: GStreamer's name of the format, width and height."""
    kind, width, height = shape
    with tempfile.NamedTemporaryFile() as raw:
        raw.write(frame)
        raw.flush()
        run("gst-launch-1.0", "-q", "filesrc", f"location={raw.name}", f"blocksize={len(frame)}", "!",
            "rawvideoparse", f"format={kind}", f"width={width}", f"height={height}", "!", "videoconvert", "!", "pngenc", "snapshot=true", "!",
            "filesink", f"location={target}")


def dimensions(picture: Path) -> tuple[int, int]:
    """Width and height in a PNG's head."""
    head = picture.read_bytes()[:24]
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return 0, 0
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
