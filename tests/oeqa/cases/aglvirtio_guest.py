# SPDX-License-Identifier: Apache-2.0
"""A guest and its virtio devices, by agl-virtio-selftest: the same on hardware, under runqemu and on the bench.

AGL_VIRTIO_EXPECT        device types that the guest must have (snd,scmi,can,rpmb,video,media); others are checked if they are there
AGL_VIRTIO_CAPTURE_TONE  the frequency, in hertz, of what the guest's card records
AGL_VIRTIO_RESTART       a command for the machine that runs the tests: it ends the devices' services, as a crash would
"""

import json
import shlex
import subprocess
import threading

from oeqa.core.decorator.depends import OETestDepends
from oeqa.core.decorator.oetimeout import OETimeout
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

PACKAGE = "agl-virtio-selftest"
DRIVERS = "aglvirtio_guest.AglVirtioGuestTest.test_every_device_has_a_driver"


class AglVirtioGuestTest(OERuntimeTestCase):
    """Seen from inside the guest."""

    def selftest(self, *names):
        """These checks' findings, by name; the program must have run."""
        words = ["agl-virtio-selftest", "--json", "--only", ",".join(names)]
        expected = self.td.get("AGL_VIRTIO_EXPECT")
        tone = self.td.get("AGL_VIRTIO_CAPTURE_TONE")
        words += ["--expect", expected] if expected else []
        words += ["--tone", tone] if tone else []
        status, output = self.target.run(shlex.join(words), timeout=600)
        self.assertIn(status, (0, 1), output)
        return {check["name"]: check for check in json.loads(output)["checks"]}

    def must_hold(self, name):
        """A check has to pass; where the guest has nothing to check, the test is skipped."""
        check = self.selftest(name)[name]
        if check["result"] == "skipped":
            self.skipTest(check["why"])
        self.assertEqual(check["result"], "passed", check)

    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_every_device_has_a_driver(self):
        """The guest has booted, and found all of its devices."""
        self.must_hold("drivers")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_sound_card_is_listed(self):
        """With playback and capture."""
        self.must_hold("card")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_playback_keeps_time(self):
        """A second of a tone takes a second."""
        self.must_hold("playback")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_capture_has_its_tone(self):
        """What was recorded is measured."""
        self.must_hold("capture")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_scmi_protocols_have_drivers(self):
        """Clocks, sensors, performance and what else the platform has."""
        self.must_hold("scmi")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_scmi_sensors_answer(self):
        """Each of them."""
        self.must_hold("sensors")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_can_controller_sends(self):
        """A frame of the lowest priority there is."""
        self.must_hold("can")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_replay_protected_memory_answers(self):
        """Nothing is written, and no key programmed."""
        self.must_hold("rpmb")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_codecs_keep_pictures(self):
        """What the encoder makes, the decoder takes."""
        self.must_hold("codec")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(600)
    def test_cameras_give_pictures(self):
        """Ten of each, whole."""
        self.must_hold("camera")

    @OETestDepends([DRIVERS])
    @OEHasPackage([PACKAGE])
    @OETimeout(1200)
    def test_devices_outlive_their_services(self):
        """All checks pass before, while and after every service is ended and started again."""
        restart = self.td.get("AGL_VIRTIO_RESTART")
        if not restart:
            self.skipTest("AGL_VIRTIO_RESTART names no command that restarts the services")
        names = ("playback", "sensors", "can", "rpmb")
        found = []
        load = threading.Thread(target=lambda: found.extend([self.selftest(*names), self.selftest(*names)]))
        load.start()
        done = subprocess.run(shlex.split(restart), capture_output=True, text=True, timeout=600, check=False)
        load.join()
        self.assertEqual(done.returncode, 0, done.stderr)
        # a stream of pictures does not outlive its service, but the next one is served
        found.append(self.selftest(*names, "codec", "camera"))
        self.assertEqual(len(found), 3, "the checks did not run to their end")
        failed = [check for checks in found for check in checks.values() if check["result"] == "failed"]
        self.assertEqual(failed, [])
