#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Shows a guest's sound device and sets the volume of its streams: an example for applications in Python.

    cabin-volume.py GUEST DEVICE [VOLUME]        VOLUME from 0.0 to 1.0

It needs dbus-next (python3-dbus-next in Debian and in meta-python). Everybody may read; to set, polkit's action
org.automotivelinux.virtio1.manage must be granted, as to the members of group agl-virtio-control by agl-virtio-polkit.
"""

import asyncio
import sys

from dbus_next import BusType, DBusError, Variant
from dbus_next.aio import MessageBus

NAME = "org.automotivelinux.Virtio1"
ROOT = "/org/automotivelinux/Virtio1"
STREAM = f"{NAME}.Sound.Stream"


async def interface(bus: MessageBus, service: str, path: str, name: str):
    """An interface of an object, as the object describes itself."""
    description = await bus.introspect(service, path)
    return bus.get_proxy_object(service, path, description).get_interface(name)


async def show(guest: str, device: str, volume: float | None) -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()

    # The manager knows the guest: its state, and which devices it has. It tells the paths, in which a name such as
    # rear-seat is written in another way.
    guests = await interface(bus, NAME, ROOT, f"{NAME}.Manager")
    known = await interface(bus, NAME, await guests.call_get_guest(guest), f"{NAME}.Guest")
    print(f"{guest} is {await known.get_state()}")
    devices = [await interface(bus, NAME, path, f"{NAME}.ManagedDevice") for path in await known.get_devices()]
    managed = {await entry.get_name(): entry for entry in devices}
    if device not in managed:
        raise LookupError(f"{guest} has no device {device}: name one of {', '.join(managed)}")

    # The device's service has a name of its own, and an object for each stream.
    service = await managed[device].get_bus_name()
    manager = await interface(bus, service, ROOT, "org.freedesktop.DBus.ObjectManager")
    for stream, interfaces in sorted((await manager.call_get_managed_objects()).items()):
        if STREAM not in interfaces:
            continue
        properties = await interface(bus, service, stream, "org.freedesktop.DBus.Properties")
        if volume is not None:
            await properties.call_set(STREAM, "Volume", Variant("d", volume))
        now = await properties.call_get(STREAM, "Volume")
        print(f"{stream.rsplit('/', 1)[1]}: volume {now.value:g}")


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 64  # EX_USAGE
    guest, device, *volume = sys.argv[1:]
    try:
        asyncio.run(show(guest, device, float(volume[0]) if volume else None))
    except (DBusError, LookupError, OSError, ValueError) as error:
        print(f"cabin-volume: {error}", file=sys.stderr)
        return 69  # EX_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
