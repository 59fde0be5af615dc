"""Let a program find its shared libraries beside itself: `set_path(program, "$ORIGIN/../lib/shared")`.

Writes a DT_RPATH into a 64-bit little-endian ELF file, without moving anything: the text goes into the unused end of a page
that is mapped anyway, the entry into one of the empty ones that linkers leave in the dynamic section. RPATH, not RUNPATH: it
also holds for the libraries of extension modules that the program loads later, and comes before LD_LIBRARY_PATH.
"""

from __future__ import annotations

import struct
from pathlib import Path

_PAGE = 4096
_LOAD, _DYNAMIC = 1, 2
_NULL, _STRTAB, _RPATH, _RUNPATH = 0, 5, 15, 29


def set_path(program: Path, path: str) -> None:
    """Raises ValueError when the file is no such ELF or has no room."""
    data = bytearray(program.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{program} is no 64-bit little-endian ELF file")
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    heads = [struct.unpack_from("<IIQQQQQQ", data, offset + at * size) for at in range(count)]
    loads = [(begin, address, length, memory) for kind, _, begin, address, _, length, memory, _ in heads if kind == _LOAD]
    text = path.encode() + b"\0"
    for begin, address, length, memory in loads:
        end = begin + length
        room = -end % _PAGE
        if length == memory and room >= len(text) + 8 and not any(data[end : end + room]):
            place, mapped = end + 8, address + length + 8
            break
    else:
        raise ValueError(f"{program} has no room for a library path")
    dynamic, length = next((begin, length) for kind, _, begin, _, _, length, _, _ in heads if kind == _DYNAMIC)
    tags = [struct.unpack_from("<qQ", data, dynamic + at) for at in range(0, length, 16)]
    if any(tag in (_RPATH, _RUNPATH) for tag, _ in tags):
        raise ValueError(f"{program} has a library path already")
    strings = dict(reversed(tags))[_STRTAB]
    empty = [tag for tag, _ in tags].index(_NULL)
    if empty + 1 >= len(tags) or mapped < strings:
        raise ValueError(f"{program} has no room for a library path")
    data[place : place + len(text)] = text
    struct.pack_into("<qQ", data, dynamic + 16 * empty, _RPATH, mapped - strings)
    program.write_bytes(data)
