# SPDX-License-Identifier: Apache-2.0
"""The demo's table: a line for each thing that was checked, in 80 columns."""

import textwrap
from dataclasses import dataclass
from enum import Enum

# Widths of the columns; two spaces lie between them.
COLUMNS = {"device": 6, "checked": 24, "what was seen": 37, "verdict": 7}


class Verdict(Enum):
    """What came of it."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"  # this machine lacks what it takes; says nothing about the service


@dataclass(frozen=True)
class Row:
    """One thing that was checked."""

    device: str
    checked: str
    seen: str
    verdict: Verdict

    def cells(self) -> tuple[str, str, str, str]:
        """As the table has it."""
        return self.device, self.checked, self.seen, self.verdict.value


def table(rows: list[Row]) -> str:
    """All rows below a head; long cells go on below themselves."""
    lines = [line(tuple(COLUMNS)), line(tuple("─" * width for width in COLUMNS.values()))]
    for row in rows:
        wrapped = [textwrap.wrap(cell, width) for cell, width in zip(row.cells(), COLUMNS.values(), strict=True)]
        height = max(len(cell) for cell in wrapped)
        lines += [line(tuple(cell[at] if at < len(cell) else "" for cell in wrapped)) for at in range(height)]
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """How many of the lines hold."""
    count = {verdict: sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    skipped = f", {count[Verdict.SKIPPED]} skipped" if count[Verdict.SKIPPED] else ""
    return f"{count[Verdict.OK]} of {len(rows)} hold{skipped}."


def line(cells: tuple[str, ...]) -> str:
    """One line of the terminal."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, COLUMNS.values(), strict=True)).rstrip()
