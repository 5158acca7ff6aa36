#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Shows a guest's sound device and sets the volume of its streams: an example for applications in Python.

    cabin-volume.py GUEST DEVICE [VOLUME]        VOLUME from 0.0 to 1.0

It needs python3-dbus (Debian) or python3-dbus-python (Yocto). Everybody may read; to set, polkit's action
org.automotivelinux.virtio1.manage must be granted, as to the members of group agl-virtio-control by agl-virtio-polkit.
"""

import sys

import dbus

NAME = "org.automotivelinux.Virtio1"
ROOT = "/org/automotivelinux/Virtio1"
PROPERTIES = "org.freedesktop.DBus.Properties"


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 64  # EX_USAGE
    guest, device = sys.argv[1:3]
    bus = dbus.SystemBus()

    # The manager knows the guest: its state, and which devices it has.
    state = dbus.Interface(bus.get_object(NAME, f"{ROOT}/guests/{guest}"), PROPERTIES)
    print(f"{guest} is {state.Get(f'{NAME}.Guest', 'State')}")

    # The device's service has a name of its own, and an object for each stream.
    path = f"{ROOT}/guests/{guest}/{device}"
    managed = dbus.Interface(bus.get_object(NAME, path), PROPERTIES)
    service = str(managed.Get(f"{NAME}.ManagedDevice", "BusName"))
    objects = dbus.Interface(bus.get_object(service, ROOT), "org.freedesktop.DBus.ObjectManager").GetManagedObjects()
    for stream, interfaces in sorted(objects.items()):
        if f"{NAME}.Sound.Stream" not in interfaces:
            continue
        properties = dbus.Interface(bus.get_object(service, stream), PROPERTIES)
        if len(sys.argv) == 4:
            properties.Set(f"{NAME}.Sound.Stream", "Volume", dbus.Double(float(sys.argv[3])))
        print(f"{stream.rsplit('/', 1)[1]}: volume {properties.Get(f'{NAME}.Sound.Stream', 'Volume'):g}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except dbus.DBusException as error:
        print(f"cabin-volume: {error.get_dbus_message()}", file=sys.stderr)
        sys.exit(69)  # EX_UNAVAILABLE
