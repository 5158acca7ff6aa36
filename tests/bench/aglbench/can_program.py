"""A program of the host on a CAN bus of the service: a packet of its socket is a struct can_frame."""

import socket
import struct
from pathlib import Path

from .checks import must

# What the bus says first: a frame of the kernel's error class, so that no program takes it for traffic.
GREETING = 0x20000100


class Program:
    """On the bus until `close`."""

    def __init__(self, path: Path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))
        self.socket.settimeout(60)
        must(struct.unpack("=I", self.hear()[:4])[0] == GREETING, "the bus does not greet")

    def hear(self) -> bytes:
        """The next frame."""
        raw = self.socket.recv(80)
        must(bool(raw), "the service has hung up")
        return raw

    def send(self, identifier: int, data: bytes, fd: bool = False) -> None:
        """Send a frame."""
        self.socket.send(struct.pack("=IB3x", identifier, len(data)) + data.ljust(64 if fd else 8, b"\0"))

    def close(self) -> None:
        """Leave the bus."""
        self.socket.close()
