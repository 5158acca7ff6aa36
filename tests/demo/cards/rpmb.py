# SPDX-License-Identifier: Apache-2.0
"""RPMB: our driver and our tool in the guest program a key, write and read back."""

import os

from aglbench.checks import Skipped
from stage import Card, Seen, Stage

NODE = "/dev/virtio_rpmb0"
TOOL = "usr/bin/rpmb-tool"
BLOCK = 256


class Rpmb(Card):
    """The replay-protected block."""

    kind = "RPMB"

    def __init__(self, stage: Stage):
        super().__init__(stage)
        self.device = stage.proxy("vault")
        self.block = os.urandom(BLOCK)
        for name, content in (("key", os.urandom(32)), ("wrong-key", os.urandom(32)), ("block", self.block)):
            (self.guest.share / name).write_bytes(content)

    def tool(self, words: str) -> str:
        """Run the tool; what it says, and how it ended if not well."""
        if self.guest.run(f"test -x /{TOOL}", check=False).code:
            raise Skipped("the guest's tool could not be built here: see above")
        done = self.guest.run(f"rpmb-tool {words}", check=False)
        return done.text.strip() if done.code == 0 else f"ended with {done.code}: {done.text.strip()}"

    def counter(self) -> str:
        """The write counter, its answer signed."""
        return self.tool("counter --key /share/key")

    def key_is_programmed_once(self) -> Seen:
        self.guest.run(f"insmod /virtio_rpmb.ko; for i in $(seq 100); do test -e {NODE} && exit 0; sleep 0.1; done; exit 1")
        first, second = self.tool("program-key /share/key"), self.tool("program-key /share/wrong-key")
        told = self.device.get("", "Rpmb", "KeyProgrammed")
        holds = "ended" not in first and "ended with 1" in second and told == "boolean true" and self.counter() == "0"
        return holds, f"{NODE}: a key, and counter 0; a second key: refused" if holds else f"{first}; {second}; {told}"

    def block_is_written_and_read_back(self) -> Seen:
        forged = self.tool("write --key /share/wrong-key --address 7 /share/block")
        written = self.tool("write --key /share/key --address 7 /share/block")
        read = self.tool("read --key /share/key --address 7 /tmp/back")
        same = "ended" not in read and self.stage.fetch("/tmp/back") == self.block
        holds = "ended with" in forged and "ended" not in written and same and self.counter() == "1"
        saw = f"{BLOCK} bytes the same, counter 1; a write with another key: refused"
        return holds, saw if holds else f"{written}; {read}; {forged}; the same: {same}; counter {self.counter()}"

    def survives_a_kill(self) -> Seen:
        old = self.device.pid()
        old.kill()
        self.device.wait_pid(other_than=old, timeout=30)
        read = self.tool("read --key /share/key --address 7 /tmp/back")
        same = "ended" not in read and self.stage.fetch("/tmp/back") == self.block
        return same and self.counter() == "1", f"the block is {'the same' if same else read}, counter {self.counter()}"

    steps = (
        ("a key is programmed, once", key_is_programmed_once),
        ("a block is written and read back", block_is_written_and_read_back),
        ("the service is killed", survives_a_kill),
    )
