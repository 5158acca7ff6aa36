# SPDX-License-Identifier: Apache-2.0
"""The camera service on its host: it starts as its unit starts it, with its test picture."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

CONFIG = """[devices.rear]
type = "media"
"""
NAME = "org.automotivelinux.Virtio1.Device.oeqa.rear"
# Where nobody writes to the root file system (kas/feature/read-only.yml), a folder of this test's own is laid over this one.
WRITABLE = "touch /etc/agl-virtio/oeqa.toml 2>/dev/null || mount -t tmpfs -o mode=755 oeqa /etc/agl-virtio"
CLEARED = "rm /etc/agl-virtio/oeqa.toml && { umount /etc/agl-virtio 2>/dev/null || true; }"
# The unit is ready when a VMM may connect; the rest of the service may come later.
ON_THE_BUS = f"for i in $(seq 300); do busctl status {NAME} >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1"


class AglVirtioMediaTest(OERuntimeTestCase):
    """One guest's camera, without the guest."""

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-media"])
    def test_media_service_waits_for_its_guest(self):
        """The unit is ready, and waits for a VMM."""
        write = f"{WRITABLE}\ncat > /etc/agl-virtio/oeqa.toml <<'EOF'\n{CONFIG}EOF"
        status, output = self.target.run(f"{write}\nsystemctl start agl-virtio-media@oeqa")
        try:
            self.assertEqual(status, 0, output)
            status, output = self.target.run(ON_THE_BUS)
            self.assertEqual(status, 0, output)
            status, output = self.target.run(
                "test -S /run/agl-virtio/oeqa-media.sock && "
                f"busctl get-property {NAME} /org/automotivelinux/Virtio1/guests/oeqa/rear org.automotivelinux.Virtio1.Device State"
            )
            self.assertEqual((status, output.strip()), (0, 's "waiting"'))
        finally:
            status, output = self.target.run(f"systemctl stop agl-virtio-media@oeqa; {CLEARED}")
        self.assertEqual(status, 0, output)
