# SPDX-License-Identifier: Apache-2.0
"""SCMI: the platform's sensors, clocks and levels, by Linux' own drivers in the guest."""

import re

from aglbench.guest import Guest
from stage import Card, Seen, Stage

POLICY = "/sys/devices/system/cpu/cpufreq/policy0"
# Of the platform that is built in.
SENSOR, HOT = "cpu-temperature", 91500


def keep_still(guest: Guest) -> None:
    """Let the guest ask for no other speed by itself: an emulated one has none to spend on that."""
    guest.run(f"echo performance > {POLICY}/scaling_governor")


def clocks_of(summary: str) -> dict[str, int]:
    """The clocks in the kernel's clk_summary, and their rates in Hz."""
    found = re.findall(r"^ +([\w-]+) +\d+ +\d+ +\d+ +(\d+) ", summary, re.MULTILINE)
    return {name: int(rate) for name, rate in found}


def resources_of(told: str, kind: str) -> dict[str, int]:
    """The values of all resources of a kind, as dbus-send writes them."""
    found = re.findall(rf'string "{kind}"\s+string "([^"]*)"\s+string "[^"]*"\s+int64 (-?\d+)', told)
    return {name: int(value) for name, value in found}


class Scmi(Card):
    """The platform."""

    kind = "SCMI"

    def __init__(self, stage: Stage):
        super().__init__(stage)
        self.device = stage.proxy("platform")

    def platform(self, kind: str) -> dict[str, int]:
        """What the service says of its resources."""
        return resources_of(self.device.get("", "Scmi", "Resources"), kind)

    def reads_a_sensor(self) -> Seen:
        folder = self.guest.run("dirname $(grep -l scmi_sensors /sys/class/hwmon/*/name)").text.strip()
        label = self.guest.run(f"cat {folder}/temp1_label").text.strip()
        self.device.call("Scmi.InjectSensor", f"string:{SENSOR}", "uint32:0", f"int64:{HOT}")
        value = int(self.guest.run(f"cat {folder}/temp1_input").text)
        self.device.call("Scmi.ReleaseSensor", f"string:{SENSOR}", "uint32:0")
        return (label, value) == (SENSOR, HOT), f"hwmon: {label} {value / 1000:.1f} °C, as set over D-Bus"

    def sees_the_clocks(self) -> Seen:
        self.guest.run("mount -t debugfs none /sys/kernel/debug 2>/dev/null; true")
        seen = clocks_of(self.guest.run("cat /sys/kernel/debug/clk/clk_summary").text)
        wanted = self.platform("clock")
        wrong = {name: (seen.get(name), rate) for name, rate in wanted.items() if seen.get(name) != rate}
        if wrong or not wanted:
            return False, f"in the guest and on the platform: {wrong or 'no clocks'}"
        example = max(wanted, key=lambda name: wanted[name])
        return True, f"clk_summary: {len(wanted)} clocks, each at the platform's rate, {example} at {wanted[example] / 1e6:g} MHz"

    def sets_the_level(self) -> Seen:
        seen = []
        for khz in (500000, 1000000):
            self.guest.run(f"echo {khz} > {POLICY}/scaling_max_freq")
            seen.append((khz // 1000, self.platform("performance").get("cpu")))
        levels = ", then ".join(f"{level} MHz" for _, level in seen)
        return all(asked == level for asked, level in seen), f"cpufreq asks, the platform is at {levels}"

    steps = (
        ("the guest reads a sensor", reads_a_sensor),
        ("the guest sees the clocks", sees_the_clocks),
        ("the guest sets its processor's speed", sets_the_level),
    )
