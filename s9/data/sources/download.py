"""Downloads one known file from several sources: resumes, leaves slow or silent sources, and checks the md5.

Received bytes are kept in `<target>.part`, to which only fitting bytes are added until the md5 of the whole decides.
"""

import hashlib
import http.client
import logging
import os
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from s9.system.errors import UserError

log = logging.getLogger("s9")

TIMEOUT_S = 10  # of silence
WINDOW_S = 8  # over which the speed is averaged
MIN_SPEED = 300_000  # bytes/s; a slower source is left


class SlowError(OSError):
    """A source is slower than it must be."""

    def __init__(self, speed: float):
        super().__init__(f"slow, {speed / 1000:.0f} kB/s")
        self.speed = speed


class DisagreesError(ValueError):
    """A source without ranges begins with other bytes than those received before."""


@dataclass(frozen=True)
class Wanted:
    """The file as it must be: its path, size in bytes, and md5."""

    target: Path
    size: int
    md5: str

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    def is_here(self) -> bool:
        return self.target.is_file() and md5_of(self.target) == self.md5


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(urls: Sequence[str], wanted: Wanted) -> list[str]:
    """Fetches the file from the first source that delivers it; if none does, returns the reason for each.

    A source slower than MIN_SPEED is left for the next, but the last source only if an earlier one was faster. When all
    have been tried, the slow ones are tried again, the fastest first and without a limit.
    """
    reasons: list[str] = []
    slow: dict[str, float] = {}  # bytes/s by url
    disagreeing: list[str] = []

    def gives_it(url: str, min_speed: float) -> bool:
        try:
            fetch(url, wanted, min_speed)
            return True
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, SlowError):
                slow[url] = error.speed
            elif isinstance(error, DisagreesError):
                disagreeing.append(url)
            reasons.append(f"{url} ({' '.join(str(error).split()) or type(error).__name__})")
            log.warning(f"left: {reasons[-1]}")
            return False

    for url in urls[:-1]:
        if gives_it(url, MIN_SPEED):
            return []
    for url in urls[-1:]:
        if gives_it(url, max(slow.values(), default=0)):
            return []
    for url in sorted(slow, key=lambda url: -slow[url]):
        if gives_it(url, 0):
            return []
    for url in list(disagreeing):  # perhaps the part is wrong
        wanted.part.unlink(missing_ok=True)
        if gives_it(url, 0):
            return []
    return reasons


def fetch(url: str, wanted: Wanted, min_speed: float = 0) -> None:
    """Fetches the file from one source, resuming an earlier attempt; shows its progress.

    Raises:
        OSError: the source cannot be reached, broke off, or is slower than `min_speed` in bytes/s; the part is kept.
        ValueError: the source has another file (the part is unchanged), or the md5 is wrong (the part is removed).
        UserError: the received bytes cannot be written.
    """
    part = wanted.part
    have = part.stat().st_size if part.exists() else 0
    if have > wanted.size:
        part.unlink()
        have = 0
    if have < wanted.size:
        headers = {"User-Agent": "s9"} | ({"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
            _refuse_another_file(response, have, wanted.size)
            _receive(response, have, wanted, min_speed)
        if (now := part.stat().st_size) < wanted.size:
            raise OSError(f"broke off after {now:,} of {wanted.size:,} bytes; the next attempt resumes there")
    if (found := md5_of(part)) != wanted.md5:
        part.unlink()
        raise ValueError(f"md5 is {found}, not {wanted.md5}")
    part.replace(wanted.target)


def _refuse_another_file(response: http.client.HTTPResponse, have: int, size: int) -> None:
    """Judges the source by its headers, before any byte is read."""
    if response.headers.get_content_type() == "text/html":
        raise ValueError("gives a page, not the file")
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        fitting = {f"bytes {have}-{size - 1}/{total}" for total in (size, "*")}
        if have == 0 or given not in fitting:
            raise ValueError(f"gives another range than was asked for, or of another file: {given}")
    elif (length := response.headers.get("Content-Length")) and int(length) != size:
        raise ValueError(f"gives another file, of {int(length):,} bytes instead of {size:,}")


def _receive(response: http.client.HTTPResponse, have: int, wanted: Wanted, min_speed: float) -> None:
    """Appends to the part. A source without ranges begins at 0 and must first repeat the part, which is not rewritten.

    If a source does not tell the length, its bytes count only if they are exactly as many as wanted.
    """
    at = have if response.status == 206 else 0
    tells_length = response.headers.get("Content-Length") is not None
    progress = tqdm(total=wanted.size, initial=have, unit="B", unit_scale=True, desc=wanted.target.name)
    with _to_grow(wanted.part) as out, progress:
        begun, begun_at = time.monotonic(), at
        while chunk := response.read1(1 << 16):  # read() would wait for all 65,536 bytes
            known, at = chunk[: max(have - at, 0)], at + len(chunk)
            if known and out.read(len(known)) != known:
                raise DisagreesError(f"begins with other bytes than those in {wanted.part}")
            if at > wanted.size:
                out.truncate(have)
                raise ValueError(f"gives another file, of more than {wanted.size:,} bytes")
            _write(out, chunk[len(known) :])
            progress.update(len(chunk) - len(known))
            if (seconds := time.monotonic() - begun) >= WINDOW_S:
                if (speed := (at - begun_at) / seconds) < min_speed:
                    raise SlowError(speed)
                begun, begun_at = time.monotonic(), at
        if at < wanted.size and not tells_length:
            out.truncate(have)
            raise ValueError(f"gives another file, of {at:,} bytes instead of {wanted.size:,}")


def _to_grow(part: Path) -> BinaryIO:
    """The part, opened at its beginning for reading and writing."""
    try:
        part.touch()
        return part.open("r+b")
    except OSError as error:
        raise UserError(f"{part}: cannot be written ({error.strerror})") from None


def _write(out: BinaryIO, chunk: bytes) -> None:
    """Appends to `out`; raises UserError, since a full disk is not the source's fault."""
    try:
        out.seek(0, os.SEEK_END)
        out.write(chunk)
        out.flush()
    except OSError as error:
        raise UserError(f"{out.name}: cannot be written ({error.strerror})") from None
