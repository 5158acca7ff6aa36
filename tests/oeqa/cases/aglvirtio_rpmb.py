# SPDX-License-Identifier: Apache-2.0
"""The RPMB service on its host: it starts as its unit starts it, and keeps its store to itself."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

CONFIG = """[devices.vault]
type = "rpmb"
path = "/var/lib/agl-virtio-rpmb/oeqa.rpmb"
"""
NAME = "org.automotivelinux.Virtio1.Device.oeqa.vault"
# Where nobody writes to the root file system (kas/feature/read-only.yml), a folder of this test's own is laid over this one.
WRITABLE = "touch /etc/agl-virtio/oeqa.toml 2>/dev/null || mount -t tmpfs -o mode=755 oeqa /etc/agl-virtio"
CLEARED = "rm /etc/agl-virtio/oeqa.toml && { umount /etc/agl-virtio 2>/dev/null || true; }"
# The unit is ready when a VMM may connect; the rest of the service may come later.
ON_THE_BUS = f"for i in $(seq 300); do busctl status {NAME} >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1"


class AglVirtioRpmbTest(OERuntimeTestCase):
    """One guest's store, without the guest."""

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-rpmb"])
    def test_rpmb_service_makes_its_store(self):
        """The unit is ready, the store is nobody else's, and the bus tells that there is no key."""
        write = f"{WRITABLE}\ncat > /etc/agl-virtio/oeqa.toml <<'EOF'\n{CONFIG}EOF"
        status, output = self.target.run(f"{write}\nsystemctl start agl-virtio-rpmb@oeqa")
        try:
            self.assertEqual(status, 0, output)
            status, output = self.target.run(ON_THE_BUS)
            self.assertEqual(status, 0, output)
            status, output = self.target.run("stat -c '%a %U' /var/lib/agl-virtio-rpmb/oeqa.rpmb && test -S /run/agl-virtio/oeqa-rpmb.sock")
            self.assertEqual((status, output.strip()), (0, "600 agl-virtio-rpmb"))
            status, output = self.target.run(
                f"busctl get-property {NAME} /org/automotivelinux/Virtio1/guests/oeqa/vault "
                "org.automotivelinux.Virtio1.Rpmb KeyProgrammed"
            )
            self.assertEqual((status, output.strip()), (0, "b false"))
        finally:
            status, output = self.target.run(
                f"systemctl stop agl-virtio-rpmb@oeqa; rm /var/lib/agl-virtio-rpmb/oeqa.rpmb && {CLEARED}"
            )
        self.assertEqual(status, 0, output)
