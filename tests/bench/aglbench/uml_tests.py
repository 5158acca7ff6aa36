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


def check(name: str, description: str, crate: str, test: str, before: str = "", words: Sequence[str] = ()) -> int:
    """Run the ignored tests of a file after some lines of shell; the exit status of the program `check-name`.

    `words` are further ones for the kernel.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, metavar="PROGRAM", help="the tests' program")
    parser.add_argument("--out", type=Path, help="folder for logs (default: a temporary one)")
    parser.add_argument("--only", metavar="WORD", help="only tests whose name contains this")
    arguments = parser.parse_args()
    try:
        out = fresh((arguments.out or Path(tempfile.mkdtemp(prefix=f"agl-{name}-"))).resolve())
        program = (arguments.tests or build(crate, test)).resolve()
        tests = [str(program), "--ignored", "--show-output", "--test-threads", "1", "--color", "never"]
        tests += [arguments.only] if arguments.only else []
        code, said = uml.run(f"{before}\nexport RUST_BACKTRACE=0\nexec {shlex.join(tests)}\n", out / "uml.log", words=words, limit=1800)
    except FAILURES as error:
        print(f"check-{name}: {error}", file=sys.stderr)
        return 70  # EX_SOFTWARE
    figures = False
    for line in said.splitlines():
        # what a test prints are its figures: they come after all verdicts
        figures = line.startswith("---- ") or (figures and not re.match(r"\w+:$|test result", line))
        if figures or re.match(r"test .* \.\.\. |test result", line):
            print(line)
    print(f"what it said is in {out / 'uml.log'}")
    return 1 if code else 0
