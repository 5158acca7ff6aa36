"""The layer's kernel modules, laid out as their recipes lay them out before they are built."""

import re
import shutil
import subprocess
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[3] / "meta-agl-virtio/recipes-kernel"
CAN = Path("drivers/net/can/virtio_can.c")
CAN_HEADER = Path("include/uapi/linux/virtio_can.h")


def has_can(source: Path) -> bool:
    """Whether virtio_can is part of this Linux."""
    return (source / CAN).exists()


def lay_out(module: str, work: Path, kernel: Path, driver: Path) -> Path:
    """A copy of a module's files below `work`, for the Linux source `kernel`. `driver` is one that has virtio_can."""
    folder = work / module
    shutil.copytree(RECIPES / module / "files", folder)
    if module == "virtio-can":
        recipe = next((RECIPES / module).glob("*.bb"))
        release = recipe.stem.partition("_")[2]
        shutil.copy(driver / CAN, folder / f"virtio_can-{release}.c")
        shutil.copy(driver / CAN_HEADER, folder / f"virtio_can-{release}.h")
        # the recipe's own task, which is a shell's
        task = re.search(r"^do_configure:append\(\) \{\n(.*?)^\}", recipe.read_text(), re.MULTILINE | re.DOTALL)
        script = task[1].replace("${S}", str(folder)).replace("${PV}", release).replace("${STAGING_KERNEL_DIR}", str(kernel))
        subprocess.run(["sh", "-e", "-c", script], check=True)
    return folder
