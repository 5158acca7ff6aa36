"""A station that keeps a CAN bus busy: it sends as fast as the bus takes it, hears another one, and misses nothing.

Run as a program it is a station of a CAN interface, whose other end is `Station` over any other socket that carries frames as
Linux has them. Two stations send the same number of frames each. A bus waits for no reader; so a station that is far ahead of what it
has heard waits for the other one. No frame is lost then for want of a reader, however slow the machine is.
"""

import argparse
import random
import select
import socket
import struct
import sys
import time

FD_FRAME, CLASSIC_FRAME = 72, 16
# Of the other one's frames twice as many may wait for a reader: a program of the host has room for 4,096.
AHEAD = 2000
PATIENCE = 120
ROOM = 8 << 20


class Lost(Exception):
    """What was heard is not what comes next."""


class Station:
    """One of two stations, 0 and 1, that send `count` frames each.

    sock   a packet is a frame
    size   bytes of data: 8 for classic frames, more for FD ones
    first  whether it begins; the other one waits until it hears something
    """

    def __init__(self, sock: socket.socket, number: int, size: int, count: int, first: bool):
        self.sock, self.number, self.size, self.count, self.first = sock, number, size, count, first
        self.frame = FD_FRAME if size > 8 else CLASSIC_FRAME
        # anything, but the same on both sides
        self.words = [random.Random(station).randbytes(1 << 16) for station in range(2)]
        self.sent = self.heard = 0
        self.seconds = 0.0
        sock.setblocking(False)

    def numbered(self, station: int, number: int) -> bytes:
        """A station's frame of this number. The identifier's lowest bit is the station's: they win arbitration by turns."""
        words = self.words[station]
        place = number * 61 % (len(words) - 64)
        identifier = (words[place] << 2 | words[place + 1] & 2 | station) & 0x7ff
        data = struct.pack("<I", number) + words[place:place + self.size - 4]
        return (struct.pack("=IB3x", identifier, self.size) + data).ljust(self.frame, b"\0")

    def run(self) -> None:
        """Send all and hear all.

        Raises Lost or TimeoutError.
        """
        if not self.first:
            self.wait(select.POLLIN)
        began = time.monotonic()
        while self.heard < self.count or self.sent < self.count:
            heard, sent = self.hear(), self.send()
            if not heard and not sent:
                self.wait(select.POLLIN | (select.POLLOUT if self.sent < self.allowed() else 0))
        self.seconds = time.monotonic() - began

    def allowed(self) -> int:
        """How many frames may have been sent by now."""
        return min(self.heard + AHEAD, self.count)

    def wait(self, events: int) -> None:
        """Until something can be done."""
        poll = select.poll()
        poll.register(self.sock, events)
        if not poll.poll(PATIENCE * 1000):
            raise TimeoutError(f"nothing for {PATIENCE} s: {self.sent} sent, {self.heard} heard of {self.count}")

    def hear(self) -> bool:
        """Everything that is there. Whether anything was."""
        before = self.heard
        while self.heard < self.count:
            try:
                raw = self.sock.recv(FD_FRAME)
            except BlockingIOError:
                break
            expected = self.numbered(1 - self.number, self.heard)
            # the byte after the length has flags of FD frames, which virtio-can does not carry
            if raw[:5] + raw[8:] != expected[:5] + expected[8:]:
                raise Lost(f"frame {self.heard}: {raw.hex()}, not {expected.hex()}")
            self.heard += 1
        return self.heard > before

    def send(self) -> bool:
        """As many as there is room for, and not so many that what comes meanwhile waits for long. Whether any was sent."""
        before = self.sent
        while self.sent < self.allowed() and self.sent < before + 32:
            try:
                self.sock.send(self.numbered(self.number, self.sent))
            except BlockingIOError:
                break
            self.sent += 1
        return self.sent > before


def on_interface(name: str) -> socket.socket:
    """A socket on a CAN interface."""
    sock = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    sock.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), ROOM)
    sock.bind((name,))
    return sock


def main() -> int:
    """The first station, on an interface."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interface")
    parser.add_argument("size", type=int)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    station = Station(on_interface(arguments.interface), 0, arguments.size, arguments.count, True)
    station.run()
    print(f"station: {station.sent} sent, {station.heard} heard in {station.seconds:.2f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
