# SPDX-License-Identifier: Apache-2.0
"""Camera: pictures that the guest takes, each compared with what the camera shows at that moment."""

from aglbench.camera_picture import Shape, verify
from aglbench.guest import MEDIA_NUMBER
from pictures import dimensions, png
from stage import Card, Seen, Stage

SHAPE = Shape("NV12", 640, 480)
COUNT = 4
PICTURE = "7-camera.png"
NAME = "Rear camera"
# See the bench's own camera: Debian's QEMU knows no device 48.
DRIVER_WORDS = f"KCFLAGS=-DVIRTIO_MEDIA_NUMBER={MEDIA_NUMBER}"


class Camera(Card):
    """The camera."""

    kind = "camera"

    def __init__(self, stage: Stage):
        super().__init__(stage)
        self.node = ""

    def sees_the_camera(self) -> Seen:
        self.guest.run("modprobe videobuf2-v4l2; modprobe videobuf2-dma-sg; insmod /virtio_media.ko")
        self.guest.run(f"for i in $(seq 100); do grep -ls '{NAME}' /sys/class/video4linux/*/name && exit 0; sleep 0.1; done; exit 1")
        found = self.guest.run(f"basename $(dirname $(grep -ls '{NAME}' /sys/class/video4linux/*/name))").text.strip()
        self.node = f"/dev/{found}"
        text = self.guest.run(f"media v4l2-ctl -d {self.node} --info --list-formats").text
        formats = [kind for kind in ("NV12", "YU12", "YUYV", "RGB3") if f"'{kind}'" in text]
        return len(formats) == 4 and NAME in text, f"{self.node}, “{NAME}”: {' '.join(formats)}"

    def takes_a_picture(self) -> Seen:
        self.guest.run(f"media v4l2-ctl -d {self.node} --set-fmt-video=width={SHAPE.width},height={SHAPE.height},pixelformat={SHAPE.fourcc} "
                       f"--stream-mmap --stream-count={COUNT} --stream-to=/tmp/frames", timeout=120)
        frames = self.stage.fetch("/tmp/frames")
        numbers = verify(SHAPE, frames)
        target = self.stage.out / PICTURE
        png(frames[-SHAPE.size:], ("nv12", SHAPE.width, SHAPE.height), target)
        holds = len(numbers) == COUNT and dimensions(target) == (SHAPE.width, SHAPE.height)
        return holds, f"{len(numbers)} of {COUNT} pictures of {SHAPE.width}x{SHAPE.height}, right to the byte; the last is {PICTURE}"

    steps = (
        ("the guest sees the camera", sees_the_camera),
        ("the guest takes pictures", takes_a_picture),
    )
