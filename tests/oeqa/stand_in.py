# SPDX-License-Identifier: Apache-2.0
"""As much of OE-core's test library as the cases use, for machines without OE-core.

The names and their meaning are OE-core's; `install()` puts them where the cases import them from. Python's own unittest runs
them. With OE-core at hand, its own `oe-test` is used instead (tests/oeqa/run).
"""

import functools
import signal
import subprocess
import sys
import types
import unittest


class Target:
    """The machine that is tested: this one, or one that is reached by ssh."""

    def __init__(self, words: list[str]):
        self.words = words

    @classmethod
    def here(cls) -> "Target":
        """This machine."""
        return cls(["/bin/sh", "-c"])

    @classmethod
    def over_ssh(cls, host: str, port: int) -> "Target":
        """Another one."""
        return cls([
            "ssh", "-l", "root", "-p", str(port), "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no",
            "-o", "LogLevel=ERROR", "-o", "ServerAliveInterval=30", "-o", "BatchMode=yes", host,
        ])

    def run(self, command: str, timeout: float | None = None) -> tuple[int, str]:
        """A command's exit status, and what it wrote."""
        path = "export PATH=/usr/sbin:/sbin:/usr/bin:/bin; "
        done = subprocess.run([*self.words, path + command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout or 300, check=False)
        return done.returncode, done.stdout.rstrip("\r\n")


class Context:
    """What cases know of the run: OE-core's `tc` and `td`."""

    target: Target
    td: dict[str, str] = {}
    image_packages: set[str] = set()
    # names of tests that did not pass, in OE-core's form module.Class.test
    not_passed: set[str] = set()


class OERuntimeTestCase(unittest.TestCase):
    """A case for a running machine."""

    tc = Context
    td = Context.td

    @property
    def target(self) -> Target:
        """The machine."""
        return Context.target

    def run(self, result=None):
        """Remember what did not pass, for tests that depend on it."""
        result = result or self.defaultTestResult()
        told = sum(map(len, (result.failures, result.errors, result.skipped)))
        super().run(result)
        if sum(map(len, (result.failures, result.errors, result.skipped))) != told:
            Context.not_passed.add(self.id())
        return result


def before(check):
    """A decorator that does `check(case)` before the test."""

    def decorate(test):
        @functools.wraps(test)
        def wrapped(case):
            check(case)
            return test(case)

        return wrapped

    return decorate


def depends(names: list[str]):
    """OETestDepends: not without what it stands on."""

    def check(case):
        for name in names:
            if name in Context.not_passed:
                case.skipTest(f"{name} did not pass")

    return before(check)


def has_package(names):
    """OEHasPackage: only where one of these packages is installed."""
    wanted = {names} if isinstance(names, str) else set(names)

    def check(case):
        if Context.image_packages.isdisjoint(wanted):
            case.skipTest(f"needs {' or '.join(sorted(wanted))}")

    return before(check)


def timeout(seconds: int):
    """OETimeout: no longer than this."""

    def decorate(test):
        @functools.wraps(test)
        def wrapped(case):
            def late(number, frame):
                raise TimeoutError(f"not within {seconds} s")

            signal.signal(signal.SIGALRM, late)
            signal.alarm(seconds)
            try:
                return test(case)
            finally:
                signal.alarm(0)

        return wrapped

    return decorate


def install() -> None:
    """Put the names where the cases import them from."""
    contents = {
        "oeqa": {}, "oeqa.core": {}, "oeqa.core.decorator": {}, "oeqa.runtime": {}, "oeqa.runtime.decorator": {},
        "oeqa.core.decorator.depends": {"OETestDepends": depends},
        "oeqa.core.decorator.oetimeout": {"OETimeout": timeout},
        "oeqa.runtime.case": {"OERuntimeTestCase": OERuntimeTestCase},
        "oeqa.runtime.decorator.package": {"OEHasPackage": has_package},
    }
    for name, names in contents.items():
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(names)
