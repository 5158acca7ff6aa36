# SPDX-License-Identifier: Apache-2.0
"""CAN: frames of can-utils between the guest and a program of the host, and the end and return of a controller."""

import re
import struct

from aglbench.can_program import Program
from aglbench.checks import must
from stage import Card, Seen, Stage

IP = "/usr/bin/ip"
EXTENDED = 0x80000000


def parse(packet: bytes) -> str:
    """A struct can_frame or canfd_frame as cansend would be told it."""
    identifier, length = struct.unpack_from("=IB", packet)
    name = f"{identifier & ~EXTENDED:08X}" if identifier & EXTENDED else f"{identifier:03X}"
    return f"{name}#{'#0' if len(packet) > 16 else ''}{packet[8:8 + length].hex().upper()}"


class Can(Card):
    """The controller."""

    kind = "CAN"

    def __init__(self, stage: Stage):
        super().__init__(stage)
        self.device = stage.proxy("chassis")
        self.programs = stage.sockets / "programs"

    def shown(self) -> str:
        """What ip tells of the interface."""
        return self.guest.run(f"{IP} -d link show can0").text

    def state(self, wanted: str) -> None:
        """Wait until the kernel says so of the controller."""
        self.guest.run(f"until {IP} -d link show can0 | grep -q {wanted}; do sleep 0.1; done", timeout=60)

    def sees_the_controller(self) -> Seen:
        self.guest.run(f"modprobe virtio_can; modprobe can-raw; {IP} link set can0 up")
        shown = self.shown()
        name = re.search(r"can <FD>.*?(ERROR-\w+)", shown, re.DOTALL)
        return bool(name) and name[1] == "ERROR-ACTIVE", f"can0, with FD, {name[1] if name else shown}"

    def sends_and_receives(self) -> Seen:
        sent = ["123#DEADBEEF", "18FEF100#0011223344556677", "055##0" + "A5" * 64]
        program = Program(self.programs)
        heard = []
        for frame in sent:
            self.guest.run(f"cansend can0 {frame}")
            heard.append(parse(program.hear()))
        dump = self.guest.spawn("candump -L -n 1 can0")
        self.guest.run("until grep -qs '^ *can0 ' /proc/net/can/rcvlist_*; do :; done")
        program.send(0x321, b"\xCA\xFE\x01")
        received = dump.wait(60).text.split()[-1]
        program.close()
        must(heard == sent, f"sent {sent}, heard {heard}")
        return received == "321#CAFE01", f"cansend: {len(sent)} frames as they were sent, one of 64 bytes; candump: {received}"

    def comes_back_from_bus_off(self) -> Seen:
        self.device.call("Can.InjectBusOff", "string:cluster")
        self.state("BUS-OFF")
        self.guest.run(f"{IP} link set can0 type can restart")
        self.state("ERROR-ACTIVE")
        program = Program(self.programs)
        self.guest.run("cansend can0 124#01")
        heard = parse(program.hear())
        program.close()
        return heard == "124#01", f"BUS-OFF, restarted by ip, ERROR-ACTIVE; then {heard} is heard"

    steps = (
        ("the guest sees the controller", sees_the_controller),
        ("can-utils send and receive", sends_and_receives),
        ("thrown off the bus over D-Bus, and restarted", comes_back_from_bus_off),
    )
