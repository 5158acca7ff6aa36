# SPDX-License-Identifier: Apache-2.0
"""The CAN service on its host: it starts as its unit starts it, and a program joins its bus."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

CONFIG = """[devices.body]
type = "can"
[[devices.body.buses]]
programs = "/run/agl-virtio/oeqa-body.sock"
"""
NAME = "org.automotivelinux.Virtio1.Device.oeqa.body"
# Where nobody writes to the root file system (kas/feature/read-only.yml), a folder of this test's own is laid over this one.
# Elsewhere nothing was laid over it, so that nothing can be taken away: that failure is none.
WRITABLE = "touch /etc/agl-virtio/oeqa.toml 2>/dev/null || mount -t tmpfs -o mode=755 oeqa /etc/agl-virtio"
CLEARED = "rm /etc/agl-virtio/oeqa.toml && { umount /etc/agl-virtio 2>/dev/null || true; }"
# The unit is ready when a VMM may connect; the rest of the service may come later.
ON_THE_BUS = f"for i in $(seq 300); do busctl status {NAME} >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1"


class AglVirtioCanTest(OERuntimeTestCase):
    """One guest's controllers, without the guest."""

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-can"])
    def test_can_service_serves_its_bus(self):
        """The unit is ready, the bus's socket is there, and both end in order."""
        write = f"{WRITABLE}\ncat > /etc/agl-virtio/oeqa.toml <<'EOF'\n{CONFIG}EOF"
        status, output = self.target.run(f"{write}\nsystemctl start agl-virtio-can@oeqa")
        try:
            self.assertEqual(status, 0, output)
            status, output = self.target.run(ON_THE_BUS)
            self.assertEqual(status, 0, output)
            status, output = self.target.run("test -S /run/agl-virtio/oeqa-body.sock && test -S /run/agl-virtio/oeqa-can.sock")
            self.assertEqual(status, 0, output)
            status, output = self.target.run(
                f"busctl get-property {NAME} /org/automotivelinux/Virtio1/guests/oeqa/body "
                "org.automotivelinux.Virtio1.Can Controllers"
            )
            self.assertEqual(status, 0, output)
            self.assertIn('"stopped"', output)
        finally:
            status, output = self.target.run(f"systemctl stop agl-virtio-can@oeqa; {CLEARED}")
        self.assertEqual(status, 0, output)
