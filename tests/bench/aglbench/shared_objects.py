"""A table of the objects that devices share, between QEMU and a service: what passes by is passed on, lookups are answered.

QEMU 11.1 has a table of its own, whose lookups never bring a descriptor (docs/video.md); until it does, this one is in its place.
"""

import array
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Self

HEADER = struct.Struct("=III")
SET_BACKEND_REQ_FD = 21
SHARED_OBJECT_LOOKUP = 8
REPLY = 5  # version 1, reply


class Gone(Exception):
    """The other side has closed the connection."""


def receive(connection: socket.socket) -> tuple[int, int, bytes, list[int]]:
    """The next message: its code, its flags, its payload and its descriptors."""
    descriptors: list[int] = []

    def take(size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            part, ancillary, _, _ = connection.recvmsg(size - len(taken), 4096)
            if not part:
                raise Gone
            taken += part
            for _, _, data in ancillary:
                descriptors.extend(array.array("i", data[:len(data) // 4 * 4]))
        return taken

    try:
        code, flags, size = HEADER.unpack(take(HEADER.size))
        return code, flags, take(size), descriptors
    except OSError as error:
        raise Gone from error


def send(connection: socket.socket, code: int, flags: int, payload: bytes, descriptors: list[int]) -> None:
    """Sends a message; descriptors go with its first byte."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    data = HEADER.pack(code, flags, len(payload)) + payload
    try:
        sent = connection.sendmsg([data], rights)
        connection.sendall(data[sent:])
    except OSError as error:
        raise Gone from error


class SharedObjects:
    """Listens on `path` for QEMU, and connects to the service at `service`.

    objects  files by UUID (16 bytes); without any QEMU's own table is asked
    asked    the UUIDs that were looked for, each with what was answered: a number, and how many descriptors
    """

    def __init__(self, path: Path, service: Path):
        self.service = service
        self.objects: dict[bytes, int] = {}
        self.asked: list[tuple[bytes, int, int]] = []
        self.listener = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.open: list[socket.socket] = [self.listener]

    def __enter__(self) -> Self:
        self._thread(self._serve)
        return self

    def __exit__(self, kind, value, trace) -> None:
        for each in self.open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone by itself
            each.close()

    def _thread(self, what, *words) -> None:
        def run() -> None:
            try:
                what(*words)
            except (Gone, OSError):
                pass  # the end of a connection is the end of a thread

        threading.Thread(target=run, daemon=True).start()

    def _serve(self) -> None:
        while True:
            vmm, _ = self.listener.accept()
            service = socket.socket(socket.AF_UNIX)
            service.connect(str(self.service))
            self.open += [vmm, service]
            self._thread(self._pass, vmm, service)
            self._thread(self._pass, service, vmm)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while True:
                code, flags, payload, descriptors = receive(source)
                if code == SET_BACKEND_REQ_FD and descriptors:
                    descriptors = [self._between(socket.socket(fileno=descriptors[0]))]
                send(target, code, flags, payload, descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
        finally:
            for each in (source, target):
                each.close()

    def _between(self, vmm: socket.socket) -> int:
        """The service's end of the back-end channel."""
        ours, theirs = socket.socketpair()
        self.open += [vmm, ours]
        self._thread(self._requests, ours, vmm)
        self._thread(self._answers, vmm, ours)
        return theirs.detach()

    def _requests(self, service: socket.socket, vmm: socket.socket) -> None:
        while True:
            code, flags, payload, descriptors = receive(service)
            if code == SHARED_OBJECT_LOOKUP:
                self.asked.append((payload, -1, 0))
            if code == SHARED_OBJECT_LOOKUP and self.objects:
                found = self.objects.get(payload)
                objects = [] if found is None else [found]
                self.asked[-1] = (payload, 0 if objects else 1, len(objects))
                send(service, code, REPLY, struct.pack("=Q", 0 if objects else 1), objects)
                continue
            send(vmm, code, flags, payload, descriptors)

    def _answers(self, vmm: socket.socket, service: socket.socket) -> None:
        while True:
            code, flags, payload, descriptors = receive(vmm)
            if code == SHARED_OBJECT_LOOKUP:
                self.asked[-1] = (self.asked[-1][0], struct.unpack("=Q", payload)[0], len(descriptors))
            send(service, code, flags, payload, descriptors)
