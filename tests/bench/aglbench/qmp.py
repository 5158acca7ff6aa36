"""QEMU's monitor, as far as tests need it: commands, and waiting for events."""

import json
import socket
import threading
import time


class QmpError(Exception):
    """QEMU refused a command, or the connection has gone."""


class Qmp:
    """One monitor connection. Commands may come from any thread."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._file = connection.makefile("rb")
        self._changed = threading.Condition()
        self._replies: dict[int, dict] = {}
        self._events: list[dict] = []
        self._last_id = 0
        self._closed = False
        threading.Thread(target=self._read, daemon=True).start()
        self.execute("qmp_capabilities")

    def _read(self) -> None:
        try:
            for line in self._file:
                message = json.loads(line)
                with self._changed:
                    if "event" in message:
                        self._events.append(message)
                    elif "id" in message:
                        self._replies[message["id"]] = message
                    self._changed.notify_all()
        except (OSError, ValueError):
            pass
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def execute(self, command: str, timeout: float = 10.0, **arguments):
        """Run a command and return what it returns."""
        with self._changed:
            self._last_id += 1
            number = self._last_id
        request = {"execute": command, "arguments": arguments, "id": number}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        with self._changed:
            self._changed.wait_for(lambda: number in self._replies or self._closed, timeout)
            reply = self._replies.pop(number, None)
        if reply is None:
            raise QmpError(f"{command}: " + ("QEMU has hung up" if self._closed else f"no reply within {timeout:g} s"))
        if "error" in reply:
            raise QmpError(f"{command}: {reply['error'].get('desc')}")
        return reply["return"]

    def wait_event(self, name: str, timeout: float = 10.0) -> dict:
        """Return the oldest event of this name that was not returned before; wait for one if there is none."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self._events:
                    if event["event"] == name:
                        self._events.remove(event)
                        return event
                left = end - time.monotonic()
                if left <= 0 or self._closed:
                    raise QmpError(f"no event {name} within {timeout:g} s")
                self._changed.wait(left)

    def close(self) -> None:
        """End the connection; QEMU goes on."""
        self._socket.close()
