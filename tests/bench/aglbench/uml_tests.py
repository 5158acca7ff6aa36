"""Tests of a crate that want what this machine's kernel has not: run in a user-mode Linux."""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import uml
from .checks import FAILURES, fresh, must

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def build(crate: str, test: str) -> Path:
    """The tests' program."""
    words = ["cargo", "test", "--locked", "--manifest-path", str(ROOT / "rust-services/Cargo.toml"), "-p", crate, "--test", test,
             "--no-run", "--message-format=json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    must(done.returncode == 0, "the tests do not build")
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Path(next(entry["executable"] for entry in reversed(found) if entry.get("executable") and entry["target"]["name"] == test))


def check(name: str, description: str, crate: str, test: str, before: str = "", timed: Sequence[str] = ()) -> int:
    """Run the ignored tests of a file after some lines of shell; the exit status of the program `check-name`.

    `timed` are parts of names of tests that a machine without time for them fails: they are left out unless asked for.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, metavar="PROGRAM", help="the tests' program")
    parser.add_argument("--out", type=Path, help="folder for logs (default: a temporary one)")
    if timed:
        parser.add_argument("--timed", action="store_true", help="also what only a machine can judge that is never late")
    arguments = parser.parse_args()
    skipped = [] if not timed or arguments.timed else timed
    try:
        out = fresh((arguments.out or Path(tempfile.mkdtemp(prefix=f"agl-{name}-"))).resolve())
        program = (arguments.tests or build(crate, test)).resolve()
        words = [str(program), "--ignored", "--test-threads", "1", "--color", "never"]
        words += [word for part in skipped for word in ("--skip", part)]
        code, said = uml.run(f"{before}\nexport RUST_BACKTRACE=0\nexec {shlex.join(words)}\n", out / "uml.log")
    except FAILURES as error:
        print(f"check-{name}: {error}", file=sys.stderr)
        return 70  # EX_SOFTWARE
    for line in said.splitlines():
        if re.match(r"test .* \.\.\. |test result", line):
            print(line)
    for part in skipped:
        print(f"left out without --timed: {part}")
    print(f"what it said is in {out / 'uml.log'}")
    return 1 if code else 0
