# SPDX-License-Identifier: Apache-2.0
"""What every device service of agl-virtio promises its host: program, user, unit, D-Bus policy."""

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class AglVirtioServicesTest(OERuntimeTestCase):
    """The image's side, before any guest is there."""

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-keeper"])
    def test_keeper_tells_its_version(self):
        """The keeper runs on this machine."""
        status, output = self.target.run("agl-virtio-keeper --version")
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"^agl-virtio-keeper \d+\.\d+\.\d+$")

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-snd"])
    def test_users_have_their_static_ids(self):
        """A root file system that is replaced as a whole keeps the owners of /var."""
        status, output = self.target.run("id -u agl-virtio-snd && id -gn agl-virtio-snd && getent group agl-virtio")
        self.assertEqual(status, 0, output)
        user, group, entry = output.splitlines()
        self.assertEqual((user, group), ("911", "agl-virtio"))
        self.assertEqual(entry.split(":")[2], "910", entry)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-common"])
    def test_sockets_have_a_folder_for_vmms_only(self):
        """Other users cannot connect to a guest's devices, and services cannot take away what is not theirs."""
        status, output = self.target.run("stat -c '%a %U %G' /run/agl-virtio")
        self.assertEqual((status, output.strip()), (0, "3770 root agl-virtio"))
        status, output = self.target.run("stat -c '%a %U' /run/agl-virtio/guests")
        self.assertEqual((status, output.strip()), (0, "755 root"))

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["agl-virtio-common"])
    def test_strangers_cannot_take_a_device_name_on_the_bus(self):
        """The bus's policy lets only the services' users have their names."""
        request = (
            "busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus "
            "RequestName su org.automotivelinux.Virtio1.Device.stranger.cabin 0"
        )
        status, output = self.target.run(f"su -s /bin/sh nobody -c '{request}' 2>&1")
        self.assertNotEqual(status, 0, output)
        self.assertRegex(output, "(?i)access denied|not allowed", output)
