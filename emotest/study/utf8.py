"""Bytes of a user's file as text: UTF-8, or an error that says where it is not.

Takes the bytes and the file that they came from; a byte order mark is dropped.
"""

from __future__ import annotations

from pathlib import Path

from emotest.errors import DataError


def utf8_text(content: bytes, file: Path) -> str:
    """The text of a file; `DataError` names the first byte that is no UTF-8, and what it may be."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        seen = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "Latin-1 or Windows-1252"
        raise DataError(
            f"{file} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start}, "
            f"line {line}; it may be {seen}",
            remedy=f"convert it, for example: iconv -f {seen.split()[0].upper()} -t UTF-8",
        ) from error
