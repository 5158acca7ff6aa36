# SPDX-License-Identifier: Apache-2.0
"""What every part of the demo shares: the guest, its cards, and the steps that become lines of the table."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aglbench.bus import Bus, DeviceProxy
from aglbench.checks import Skipped
from aglbench.guest import Guest
from report import Row, Verdict

TRIES = 5
# Whether it holds, and what was seen.
Seen = tuple[bool, str]


class TooSlow(Exception):
    """The guest was too slow for its own card. Says nothing about the service."""


@dataclass(frozen=True)
class Stage:
    """The guest, and where things are on the host."""

    guest: Guest
    bus: Bus
    out: Path  # what the demo leaves behind
    sockets: Path

    def proxy(self, device: str) -> DeviceProxy:
        """A card of the guest on the bus."""
        return DeviceProxy(self.bus, guest="cluster", device=device)

    def fetch(self, path: str) -> bytes:
        """A file of the guest, once."""
        self.guest.run(f"mv {path} /share/fetched")
        return (self.guest.share / "fetched").read_bytes()


class Card:
    """A device and what is shown of it."""

    kind = ""  # as the table has it
    steps: Sequence[tuple[str, Callable[..., Seen]]] = ()

    def __init__(self, stage: Stage):
        self.guest = stage.guest
        self.stage = stage

    def begin_anew(self) -> None:
        """Leave nothing of a step that is done again."""


def perform(card: Card) -> list[Row]:
    """Do all steps of a card; a line for each."""
    return [_row(card, what, do) for what, do in card.steps]


def _row(card: Card, what: str, do: Callable[[Card], Seen]) -> Row:
    print(f"  {card.kind:6}  {what} …", end="", flush=True)
    began, verdict, saw = time.monotonic(), Verdict.FAILED, ""
    for again in reversed(range(TRIES)):
        try:
            holds, saw = do(card)
            verdict = Verdict.OK if holds else Verdict.FAILED
            break
        except TooSlow as error:
            saw = str(error)
            card.begin_anew()
            print(" the guest was too slow, again …" if again else "", end="", flush=True)
        except Skipped as error:
            verdict, saw = Verdict.SKIPPED, str(error)
            break
        except Exception as error:  # noqa: BLE001 (whatever went wrong is this line's verdict)
            saw = f"{type(error).__name__}: {error}"
            break
    print(f" {verdict.value} ({time.monotonic() - began:.1f} s)", flush=True)
    return Row(card.kind, what, saw, verdict)
