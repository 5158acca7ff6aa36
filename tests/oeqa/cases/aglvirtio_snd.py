# SPDX-License-Identifier: Apache-2.0
"""The sound device's service under systemd: ready, sandboxed, on the bus, alive after a kill."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.core.decorator.oetimeout import OETimeout
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

GUEST = "oeqaguest"
UNIT = f"agl-virtio-snd@{GUEST}.service"
CONFIGURATION = f"/etc/agl-virtio/{GUEST}.toml"
SOCKET = f"/run/agl-virtio/{GUEST}-snd.sock"
BUS_NAME = f"org.automotivelinux.Virtio1.Device.{GUEST}.cabin"
OBJECT = f"/org/automotivelinux/Virtio1/guests/{GUEST}/cabin"
DEVICE = "org.automotivelinux.Virtio1.Device"

# The target waits, not we: a slow machine gets thirty seconds, a fast one loses none.
UNTIL = "for i in $(seq 300); do {} && exit 0; sleep 0.1; done; exit 1"


class AglVirtioSndTest(OERuntimeTestCase):
    """One guest's sound device, with the built-in back end, so that any machine will do."""

    @classmethod
    def setUpClass(cls):
        table = '[devices.cabin]\\ntype = "snd"\\n'
        # where nobody writes to the root file system (kas/feature/read-only.yml), a folder of this test's own is laid over this one
        writable = f"touch {CONFIGURATION} 2>/dev/null || mount -t tmpfs -o mode=755 oeqa /etc/agl-virtio"
        cls.tc.target.run(f"{writable}; printf '{table}' > {CONFIGURATION} && systemctl start {UNIT}")

    @classmethod
    def tearDownClass(cls):
        cls.tc.target.run(f"systemctl stop {UNIT}; rm -f {CONFIGURATION}; umount /etc/agl-virtio 2>/dev/null")

    def on_target(self, command):
        """The output of a command that has to succeed; the unit's journal when it does not."""
        status, output = self.target.run(command)
        if status != 0:
            _, journal = self.target.run(f"journalctl --no-pager -n 30 -u {UNIT}")
            self.fail(f"{command}\nended with {status}: {output}\n{journal}")
        return output.strip()

    def device_property(self, name):
        """A property of the device on D-Bus."""
        call = f"busctl --json=short get-property {BUS_NAME} {OBJECT} {DEVICE} {name}"
        return json.loads(self.on_target(call))["data"]

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-snd"])
    @OETimeout(120)
    def test_unit_is_ready_when_its_socket_accepts(self):
        """systemctl start returned, so the socket is there, for VMMs only."""
        self.assertEqual(self.on_target(f"systemctl is-active {UNIT}"), "active")
        self.assertEqual(self.on_target(f"stat -c '%F %U %G' {SOCKET}"), "socket agl-virtio-snd agl-virtio")
        mode = int(self.on_target(f"stat -c %a {SOCKET}"), 8)
        self.assertEqual(mode & 0o007, 0, oct(mode))

    @OETestDepends(["aglvirtio_snd.AglVirtioSndTest.test_unit_is_ready_when_its_socket_accepts"])
    @OETimeout(120)
    def test_device_is_on_the_bus(self):
        """Anybody may read what a device is and how it does."""
        self.on_target(UNTIL.format(f"busctl status {BUS_NAME} >/dev/null 2>&1"))
        self.assertEqual(self.device_property("Guest"), GUEST)
        self.assertEqual(self.device_property("Type"), "snd")
        self.assertEqual(self.device_property("State"), "waiting")

    @OETestDepends(["aglvirtio_snd.AglVirtioSndTest.test_device_is_on_the_bus"])
    @OETimeout(120)
    def test_service_runs_without_capabilities(self):
        """Nothing that a guest takes over can do what root can."""
        sandbox = self.device_property("Sandbox")
        self.assertTrue(sandbox)
        self.assertEqual([measure for measure, state in sandbox.items() if state == "off"], [])
        process = self.on_target("pidof agl-virtio-snd").split()[0]
        self.assertEqual(self.on_target(f"awk '/^CapEff/ {{ print $2 }}' /proc/{process}/status"), "0" * 16)
        self.assertEqual(self.on_target(f"awk '/^Seccomp:/ {{ print $2 }}' /proc/{process}/status"), "2")

    @OETestDepends(["aglvirtio_snd.AglVirtioSndTest.test_device_is_on_the_bus"])
    @OETimeout(180)
    def test_killed_service_comes_back_and_the_unit_stays(self):
        """The keeper starts a new service; systemd, and a VMM, see nothing."""
        keeper = self.on_target(f"systemctl show -P MainPID {UNIT}")
        service = self.on_target("pidof agl-virtio-snd").split()[0]
        self.on_target(f"kill -KILL {service}")
        self.on_target(UNTIL.format(f"p=$(pidof agl-virtio-snd) && [ \"$p\" != {service} ]"))
        self.on_target(UNTIL.format(f"busctl status {BUS_NAME} >/dev/null 2>&1"))
        self.assertEqual(self.on_target(f"systemctl show -P MainPID {UNIT}"), keeper)
        self.assertEqual(self.on_target(f"systemctl show -P NRestarts {UNIT}"), "0")
