"""Which symbols a Linux source exports to modules, read from its text: what a whole build would write to Module.symvers."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# EXPORT_SYMBOL, _GPL, _NS, _NS_GPL, EXPORT_PER_CPU_SYMBOL, EXPORT_STATIC_CALL, EXPORT_TRACEPOINT_SYMBOL and so on.
STATEMENT = re.compile(rb'\bEXPORT_(?:(PER_CPU|TRACEPOINT)_)?(SYMBOL|STATIC_CALL)(_NS)?(?:_TRAMP)?(_GPL)?\s*\(\s*([\w#]+)\s*(?:,\s*"?(\w+)"?\s*)?\)')
# A macro with parameters and all of its lines.
MACRO = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+(\w+)\(([^)]*)\)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
# Written in other places than a driver's kernel.
ELSEWHERE = re.compile(r"(tools|samples|Documentation|scripts|arch/(?!arm64/)[^/]+)/")


class Symbol(NamedTuple):
    """A symbol that modules may use: all of them, or those under the GPL, which may have to name a namespace."""

    name: str
    gpl: bool
    namespace: str


def may_be_in(path: str) -> bool:
    """Whether a file of a source, told from its root, can export anything to modules on arm64."""
    return path.endswith((".c", ".S", ".h")) and not ELSEWHERE.match(path)


def of(text: bytes) -> Iterator[Symbol]:
    """What a file exports, by macros of its own too."""
    if b"EXPORT_" not in text:
        return
    yield from _stated(text)
    for macro in MACRO.finditer(text):
        name, parameters, body = macro.group(1), [word.strip() for word in macro.group(2).split(b",")], macro.group(3)
        if b"EXPORT_" not in body:
            continue
        for use in re.finditer(rb"^[ \t]*" + name + rb"[ \t]*\(([^)]*)\)", text, re.MULTILINE):
            filled = body
            for parameter, argument in zip(parameters, use.group(1).split(b","), strict=False):
                if re.fullmatch(rb"\w+", parameter):
                    filled = re.sub(rb"\b" + parameter + rb"\b", argument.strip().replace(b"\\", rb"\\"), filled)
            yield from _stated(re.sub(rb"\s*##\s*", b"", filled))


def _stated(text: bytes) -> Iterator[Symbol]:
    for kind, what, in_namespace, gpl, name, namespace in STATEMENT.findall(text):
        names = [name.decode()]
        if b"#" in name:
            continue
        if kind == b"TRACEPOINT":
            names = [part + names[0] for part in ("__tracepoint_", "__traceiter_", "__SCK__tp_func_")]
        elif what == b"STATIC_CALL":
            names = [part + names[0] for part in ("__SCK__", "__SCT__")]
        for each in names:
            yield Symbol(each, bool(gpl), namespace.decode() if in_namespace else "")


def of_tree(source: Path) -> set[Symbol]:
    """What a source tree exports."""
    symbols = set()
    for file in source.rglob("*.[chS]"):
        if may_be_in(str(file.relative_to(source))) and file.is_file():
            symbols.update(of(file.read_bytes()))
    return symbols


def symvers(symbols: Iterable[Symbol]) -> str:
    """As Module.symvers has them, without checksums: with it modpost knows what a module may use, and how."""
    return "".join(
        f"0x00000000\t{symbol.name}\tvmlinux\tEXPORT_SYMBOL{'_GPL' if symbol.gpl else ''}\t{symbol.namespace}\n"
        for symbol in sorted({entry.name: entry for entry in sorted(symbols)}.values())
    )
