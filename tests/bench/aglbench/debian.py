"""Packages: the ones this machine lacks, and newer ones of a later Debian extracted to a folder beside the system.

Mirrors are read from the machine's own apt configuration, so a machine with a local mirror uses that.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .progress import Progress, SetupError

# The Debian release whose packages the guest and the VMM are made of.
RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing(packages: list[str]) -> list[str]:
    """Those packages that are not installed on this machine."""
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True, text=True, check=False,
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def install(packages: list[str], progress: Progress, log: Path) -> None:
    """Install packages of the machine's own release."""
    if os.geteuid() != 0:
        raise SetupError(
            f"packages are missing: {' '.join(packages)}",
            f"run this as root once, or: apt-get install --no-install-recommends {' '.join(packages)}",
        )
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    # another apt may be at work: wait for it and do not fail
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    progress.run([*apt, "update"], log, env=env)
    progress.run([*apt, "install", "-y", "--no-install-recommends", *packages], log, env=env)


def mirror() -> str:
    """The address of the Debian archive that this machine uses for its own release."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE))
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        raise SetupError("this machine is not Debian", "run the bench on Debian 12 or in a container of it")
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text(errors="replace")
        if file.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
                if codename in fields.get("Suites", "").split() and "deb" in fields.get("Types", "").split():
                    return fields["URIs"].split()[0]
        else:
            line = re.search(rf"^deb\s+(?:\[[^]]*\]\s*)?(\S+)\s+{codename}\s", text, re.MULTILINE)
            if line:
                return line[1]
    raise SetupError(
        f"no line for Debian {codename} in /etc/apt/sources.list or /etc/apt/sources.list.d",
        "add the line of a Debian mirror there",
    )


def source_lines(*, backports: bool) -> str:
    """apt's source lines for the later release, and its backports where wanted."""
    return lines_of((RELEASE, f"{RELEASE}-backports") if backports else (RELEASE,))


def lines_of(suites: tuple[str, ...]) -> str:
    """apt's source lines for these suites."""
    return "".join(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n" for suite in suites)


@dataclass(frozen=True)
class Found:
    """A package in one version."""

    package: str
    version: str


class Archive:
    """What the later release and its backports (or other suites) have, seen through an apt of its own in a scratch folder."""

    def __init__(self, work: Path, progress: Progress, log: Path, suites: tuple[str, ...] = ()):
        self.work = work
        self.progress = progress
        self.log = log
        for folder in ("lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True, exist_ok=True)
        (work / "status").touch()
        (work / "sources.list").write_text(lines_of(suites) if suites else source_lines(backports=True))
        (work / "apt.conf").write_text(
            f'Dir::State "{work}";\nDir::State::lists "{work}/lists";\nDir::State::status "{work}/status";\n'
            f'Dir::Cache "{work}/cache";\nDir::Etc::sourcelist "{work}/sources.list";\nDir::Etc::sourceparts "-";\n'
            'Acquire::Languages "none";\nAPT::Sandbox::User "root";\nAPT::Architectures { "amd64"; "arm64"; };\n'
        )
        self.env = dict(os.environ, APT_CONFIG=str(work / "apt.conf"))
        try:
            progress.run(["apt-get", "-q", "update"], log, env=self.env)
        except SetupError as error:
            raise SetupError(
                f"cannot read the package lists of Debian {', '.join(suites) or RELEASE} from {mirror()}",
                "check the network, and that this mirror carries that release and its backports",
            ) from error

    def versions(self, name_pattern: str) -> list[Found]:
        """All versions of the packages whose whole name matches, newest first."""
        packages = [name for name in self._ask("pkgnames") if re.fullmatch(name_pattern, name)]
        if not packages:
            return []
        table = self._ask("madison", *packages)
        found = {Found(*(column.strip() for column in line.split("|")[:2])) for line in table}
        return sorted(found, key=lambda f: _version_key(f.version), reverse=True)

    def _ask(self, *question: str) -> list[str]:
        # a container's apt is often told to keep no index; without one, each question takes seconds
        index = ["-o", "Dir::Cache::pkgcache=pkgcache.bin", "-o", "Dir::Cache::srcpkgcache=srcpkgcache.bin"]
        answer = subprocess.run(["apt-cache", *index, *question], env=self.env, capture_output=True, text=True, check=True)
        return answer.stdout.splitlines()

    def download(self, found: Found, folder: Path) -> Path:
        """Fetch one package's file into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.progress.run(
            ["apt-get", "-q", "download", f"{found.package}={found.version}"], self.log, cwd=folder, env=self.env
        )
        return next(folder.glob(f"{found.package}_*.deb"))


def _version_key(version: str) -> tuple:
    """Order for Debian versions as far as the bench needs it: numbers as numbers, '~' before the end."""
    return (*(
        (-1, "") if part == "~" else (int(part), "") if part.isdigit() else (0, part)
        for part in re.findall(r"\d+|~|[^\d~]+", version)
    ), (0, ""))


def extract(target: Path, arch: str, packages: list[str], progress: Progress, log: Path, *, backports: bool = False) -> None:
    """Unpack packages with all they depend on. Nothing of it is run, so a foreign architecture is fine."""
    sources = log.parent / "sources.list"
    sources.write_text(source_lines(backports=backports))
    command = [
        "mmdebstrap", "--variant=extract", f"--arch={arch}", "--skip=check/qemu",
        f"--include={','.join(packages)}", RELEASE, str(target), str(sources),
    ]
    if os.geteuid() == 0:
        command.insert(1, "--mode=root")
    progress.run(command, log)
    # parts that no program of the bench reads
    for unread in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(target / unread, ignore_errors=True)
