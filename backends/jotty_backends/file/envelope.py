"""Lines with a checksum, and batches of them that take effect together or not at all."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Batches", "json_field", "opaque", "opened", "read_batches", "sealed", "sealed_batch"]

_START: Final = b'{"crc32":"'
_SUM: Final = slice(len(_START), len(_START) + 8)
_COMMA: Final = slice(_SUM.stop, _SUM.stop + 2)
_REST: Final = _COMMA.stop
_PART: Final = b'"part":['
_BASE64: Final = b'"base64":"'


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON.")


_decode: Final = json.JSONDecoder(parse_constant=_refuse).decode


def sealed(rest: bytes) -> bytes:
    """Return a line with the checksum of its rest: the JSON object without its opening brace."""
    return b'%s%08x",%s\n' % (_START, crc32(rest), rest)


def opened(line: bytes) -> bytes | None:
    """Return the rest of a line, which comes without its end; None if it is damaged."""
    rest = line[_REST:]
    is_sound = line[: _SUM.start] == _START and line[_COMMA] == b'",' and line[_SUM] == b"%08x" % crc32(rest)
    return rest if is_sound else None


def sealed_batch(lines: Sequence[str]) -> bytes:
    """Return lines of JSON that take effect together."""
    if len(lines) == 1:
        return sealed(lines[0][1:].encode())
    number = len(lines)
    return b"".join(
        sealed(b"%s%d,%d],%s" % (_PART, at, number, line[1:].encode()))
        for at, line in enumerate(lines, start=1)
    )


@attrs.frozen
class Batches:
    """Whole batches.

    Attributes:
        lines: Those that are sound, as they were written.
        length: How many bytes the batches have.
        damaged: Where the others begin and end.
    """

    lines: list[str]
    length: int
    damaged: list[tuple[int, int]]


def read_batches(data: bytes) -> Batches:
    """Return the whole batches at the beginning of what was read.

    A batch is whole once its last line is: what is written in one piece is there up to some point, or all. So
    an unsound line before that point is damaged, and one behind it is not there yet.
    """
    lines: list[str] = []
    damaged: list[tuple[int, int]] = []
    length = at = missing = 0
    in_batch: list[str] = []
    while (end := data.find(b"\n", at)) != -1:
        rest = opened(data[at:end])
        behind = 0  # this line in its batch
        if rest is None:
            damaged.append((at, end))
        elif rest.startswith(_PART):
            stop = rest.index(b"]")
            part, parts = rest[len(_PART) : stop].split(b",")
            behind, rest = int(parts) - int(part), rest[stop + 2 :]
        if rest is not None:
            in_batch.append("{" + rest.decode())
        missing = missing - 1 if missing else behind
        at = end + 1
        if not missing:
            lines += in_batch
            length = at
            in_batch.clear()
    return Batches(lines, length, [one for one in damaged if one[0] < length])


def json_field(name: str, data: bytes) -> bytes:
    """Return opaque bytes as the last field of a JSON object: as they are where they are JSON."""
    if _is_json(data):
        return b'"%s":%s}' % (name.encode(), data)
    return b'%s%s"}' % (_BASE64, b64encode(data))


def opaque(name: str, rest: bytes) -> bytes | None:
    """Return the bytes of such a field, which is the only one in this rest; None if it is no such field."""
    start = b'"%s":' % name.encode()
    if rest.startswith(start):
        return rest[len(start) : -1]
    if rest.startswith(_BASE64):
        return b64decode(rest[len(_BASE64) : -2])
    return None


def _is_json(data: bytes) -> bool:
    if b"\n" in data:
        return False
    try:
        _decode(data.decode())
    except (ValueError, RecursionError):
        return False
    return True
