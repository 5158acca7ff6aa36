# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel: what it says of all the drivers after they have worked."""

import re

from stage import Card, Seen

# A machine that is slow makes a kernel speak of lockups: no fault of a driver.
COMPLAINT = re.compile(r"^.*(?:WARNING: |Oops|BUG: (?!(?:soft|workqueue) lockup)|refcount_t: ).*$", re.MULTILINE)


def complaints(log: str) -> list[str]:
    """The lines of a kernel's log that tell of a fault of its own."""
    return [line.strip() for line in COMPLAINT.findall(log)]


class Kernel(Card):
    """What is behind all other cards."""

    kind = "guest"

    def has_no_complaint(self) -> Seen:
        log = (self.stage.out / "guest-kernel.log").read_text(errors="replace")
        found = complaints(log)
        version = re.search(r"Linux version (\S+)", log)
        return not found, f"Linux {version[1]}: {len(log.splitlines())} lines, none of a fault" if not found and version else "; ".join(found[:3])

    steps = (("its kernel has no complaint", has_no_complaint),)
