"""Reading the reports of the kernel's self-tests (KTAP)."""

import re
from dataclasses import dataclass, field


@dataclass
class Report:
    """What a self-test reported."""

    planned: int | None = None
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # name: the reason, as the test gave it
    bail_out: str | None = None

    @property
    def good(self) -> bool:
        """Whether it ran to its end and nothing failed. Skipped tests are not failures, but are worth showing."""
        ran = len(self.passed) + len(self.failed) + len(self.skipped)
        return self.bail_out is None and not self.failed and ran > 0 and self.planned == ran

    def __str__(self) -> str:
        text = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        if self.bail_out is not None:
            text += f", bailed out: {self.bail_out}"
        elif self.planned != len(self.passed) + len(self.failed) + len(self.skipped):
            text += f", of {self.planned} planned"
        return text


def parse_ktap(lines: list[str]) -> Report:
    """Read a report; the test's other lines are passed over, save the one after a skipped test: its reason."""
    report = Report()
    just_skipped = None
    for line in lines:
        if just_skipped and line.startswith("# "):
            report.skipped[just_skipped] = line[2:]
        just_skipped = None
        if plan := re.match(r"1\.\.(\d+)", line):
            report.planned = int(plan[1])
        elif bail := re.match(r"Bail out!\s*(.*)", line):
            report.bail_out = bail[1]
        elif skip := re.match(r"ok \d+ (.*?)\s*# SKIP\s*(.*)", line):
            just_skipped = f"{skip[1]} {skip[2]}".strip()
            report.skipped[just_skipped] = ""
        elif result := re.match(r"(not )?ok \d+ ?-? ?(.*)", line):
            (report.failed if result[1] else report.passed).append(result[2].strip())
    return report
