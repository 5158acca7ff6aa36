"""Checks of what agl-virtioctl shows of guests that run: to a person at a terminal, and to programs."""

import contextlib
import json
import re
import subprocess
import threading

from .checks import must
from .managed import wait
from .terminal import Terminal

TONE = "speaker-test -D hw:0,0 -c 2 -r 48000 -F S16_LE -t sine"


class Followed:
    """The lines that a command writes until it is interrupted."""

    def __init__(self, words: list[str]):
        self.lines: list[str] = []
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def __enter__(self) -> "Followed":
        return self

    def __exit__(self, kind, value, trace) -> None:
        self.process.kill()
        self.process.wait()


def has(pattern: str, lines: list[str]) -> bool:
    """Whether a line begins with this."""
    return any(re.match(pattern, line) for line in lines)


def facts(guests: list[dict]) -> list[tuple]:
    """What does not change while nobody does anything."""
    return [(guest["name"], guest["pid"], guest["state"], [device["name"] for device in guest["devices"]]) for guest in guests]


def check(host, *words: object) -> subprocess.CompletedProcess:
    """agl-virtioctl check: a machine for tests may be able to run guests, or not."""
    return subprocess.run(host.manager.words("check", *words), capture_output=True, text=True, check=False)


def watched(host) -> str:
    """`top` in 80 columns has guests, devices, rates and the stream that plays; its JSON has the same"""
    music = host.ivi.spawn(TONE)
    with Terminal(host.manager.words("top", "--interval", "0.2")) as terminal:
        lines = terminal.wait("the stream that plays", lambda lines: has(r"    output Play \(Multimedia\) running", lines))
        must(re.match("agl-virtio  2 of 2 guests run", lines[0]) is not None, lines[0])
        heads = lines[2].split()
        must(heads == ["GUEST/DEVICE", "TYPE", "STATE", "REQ/S", "BYTE/S", "ERRORS", "XRUNS", "LATENCY"], lines[2])
        must(has(r"ivi +guest +running +\d+ .*qemu", lines), "\n".join(lines))
        card = r"  card +snd +running +[1-9]\S* +[1-9]\S* +\d+ +\d+ +\d+ .s"
        seen = terminal.wait("its card's numbers", lambda lines: has(card, lines))
        must(has(r"  extra +snd +stopped +- +- +- +- +-$", seen), "\n".join(seen))
        must(all(len(line) <= 80 for line in seen), "\n".join(seen))
        terminal.type("q")
        must(terminal.end() == 0, "it did not end in order")
        must("\x1b[?1049l" in terminal.raw, "the terminal is not as it was")
    with Followed(host.manager.words("top", "--json", "--interval", "0.2")) as followed:
        def rate():
            looks = [json.loads(line) for line in followed.lines if line.endswith("\n")]
            rates = [entry for look in looks for entry in look["rates"] if (entry["guest"], entry["device"]) == ("ivi", "card")]
            return next((entry["rate"] for entry in rates if entry["rate"]["bytes_per_s"] > 0), None)
        found = wait("the card's rate", rate)
        first = json.loads(followed.lines[0])
        must([guest["name"] for guest in first["guests"]] == ["cluster", "ivi"], followed.lines[0])
    music.kill()
    music.wait()
    must("needs a terminal" in host.manager.refused("top"), "it draws on what is no terminal")
    return f"the card takes {found['bytes_per_s'] / 1000:.0f} kB/s"


def followed(host) -> str:
    """`monitor` tells a change in a line, and in JSON with the value's type"""
    with Followed(host.manager.words("monitor")) as text, Followed(host.manager.words("monitor", "--json")) as lines:
        steps = iter(range(10_000))

        def told():
            # nobody says when it has begun to listen
            host.manager.ctl("set", "ivi/card/streams/0", "Volume", "0.25" if next(steps) % 2 else "0.75")
            events = [json.loads(line) for line in lines.lines if line.endswith("\n")]
            volumes = [event for event in events if event["property"] == "Volume" and event["path"].endswith("ivi/card/streams/0")]
            return volumes if any(" = 0.25" in line for line in text.lines) else None
        volumes = wait("the change", told)
        must({event["value"] for event in volumes} <= {0.25, 0.75} and volumes[0]["usec"] > 0, f"{volumes}")
        line = next(line for line in text.lines if " = 0.25" in line)
        must(re.match(r"\d\d:\d\d:\d\d\.\d{3}Z  ivi/card/streams/0  Volume = 0.25$", line.strip()) is not None, line)
    host.manager.ctl("set", "ivi/card/streams/0", "Volume", "1.0")
    return line.strip()


def told(host) -> str:
    """`report`, `check`, `list`, `status` and `show` say the same to a person and, as JSON, to a program"""
    report = json.loads(host.manager.ctl("report"))
    listed = json.loads(host.manager.ctl("list", "--json"))
    must(facts(report["guests"]) == facts(listed) == facts(json.loads(host.manager.ctl("status", "--json"))), f"{facts(listed)}")
    must(report["files"]["ivi"] == host.ivi.file.read_text(), "the file is another one")
    must(report["commands"]["ivi"] == json.loads(host.manager.ctl("show", "--command", "ivi", "--json")), "the command is another one")
    must(json.loads(host.manager.ctl("show", "ivi", "--json"))["definition"] == report["files"]["ivi"], "show says another file")
    must(report["manager"]["faults"] == [] and report["kernel"].startswith("Linux version"), f"{report['manager']}")
    text = host.manager.ctl("list")
    must(all(re.search(rf"^{name} +{state} ", text, re.MULTILINE) for name, _, state, _ in facts(listed)), text)

    plain, found = check(host), json.loads(check(host, "--json").stdout)
    must(plain.returncode == (69 if any(entry["verdict"] == "no" for entry in found) else 0), f"{plain.returncode}: {plain.stdout}")
    for entry in found:
        must(re.search(rf"^{entry['verdict']} +{re.escape(entry['what'])}: ", plain.stdout, re.MULTILINE) is not None, plain.stdout)
        must((entry["verdict"] == "ok") == (entry["remedy"] == ""), f"{entry}")
        must(entry["remedy"] in plain.stdout, plain.stdout)
    must([entry["what"] for entry in found] == [entry["what"] for entry in report["host"]], "the report has other findings")
    wrong = host.work / "wrong.toml"
    wrong.write_text("[guest]\ncpus = 0\n")
    verdicts = json.loads(check(host, "--json", host.ivi.file, wrong).stdout)
    must(verdicts[0]["fault"] is None and "wrong.toml:2" in verdicts[1]["fault"], f"{verdicts}")

    with Terminal(host.manager.words("status", "ivi"), rows=60) as terminal:
        must(terminal.end() == 0 and "\x1b[32mrunning\x1b[0m" in terminal.raw, "a terminal gets no colours")
    must("\x1b" not in host.manager.ctl("status", "ivi"), "a file gets colours")
    # who has read enough is not followed
    with contextlib.closing(subprocess.Popen(host.manager.words("list"), stdout=subprocess.PIPE).stdout) as out:
        out.readline()
    return f"{len(found)} findings on this host; {len(listed)} guests in all of them"
