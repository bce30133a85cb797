"""Getting metadata and targets from a web server; a target that was cut off goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

TIMEOUT_S = 30.0
_PIECE = 1 << 18
_PARTS = 2
"""Other targets that may lie there unfinished."""
_RANGE_NOT_SATISFIABLE = 416


class HttpsFetcher(FetcherInterface):
    """Gets from a web server, or from the hub that this device was enrolled at, whose authority is its own.

    What has come of a target is kept in `partial` and asked for no more (Range and If-Range, RFC 9110, sections 14.2
    and 13.1.5). It proves nothing: the whole must have the signed hash, and what has another begins anew.

    Parameters
    ----------
    targets
        The address under which targets lie; only they are kept in parts.
    """

    def __init__(self, tls: ssl.SSLContext | None, targets: str, partial: Path) -> None:
        self._tls = tls or ssl.create_default_context()
        self._targets, self._folder = targets, partial

    def _fetch(self, url: str) -> Iterator[bytes]:
        if not url.startswith(self._targets):
            yield from self._answer(url, {}, None)
            return
        part = self._folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"
        others = sorted(
            (one for one in self._folder.glob("*.part") if one != part), key=lambda one: one.stat().st_mtime
        )
        for other in others[:-_PARTS]:  # of releases that are not wanted any longer
            _drop(other)
        try:
            yield from self._answer(url, _wanted(part), part)
        except DownloadHTTPError as error:
            if error.status_code != _RANGE_NOT_SATISFIABLE:
                raise
            _drop(part)  # it was all there, or the server has another file by that name
            yield from self._answer(url, {}, part)
        _drop(part)

    def _answer(self, url: str, headers: dict[str, str], part: Path | None) -> Iterator[bytes]:
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:
                yield from _pieces(answer) if part is None else self._kept(answer, part)
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadHTTPError(f"{url}: {error.code} {error.reason}", error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{url}: {error or type(error).__name__}") from None

    def _kept(self, answer: http.client.HTTPResponse, part: Path) -> Iterator[bytes]:
        """What is here already, and then what comes, kept piece by piece."""
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            _drop(part)
        with part.open("ab+") as file:
            size = file.tell()
            if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
                said = answer.headers.get("Content-Range", "")
                if not said.startswith(f"bytes {size}-"):
                    raise DownloadError(f"the server sends {said!r}, asked for from {size} on")
                file.seek(0)
                yield from _pieces(file)
            elif etag := answer.headers.get("ETag", ""):
                part.with_suffix(".etag").write_text(etag, encoding="ascii", errors="replace")
            for piece in _pieces(answer):
                file.write(piece)
                file.flush()
                yield piece
        length = answer.headers.get("Content-Length")
        if length is not None and part.stat().st_size < size + int(length):
            raise DownloadError("the connection ended before the end of the file")


def _pieces(file: http.client.HTTPResponse | object) -> Iterator[bytes]:
    read = file.read1 if isinstance(file, http.client.HTTPResponse) else file.read  # type: ignore[attr-defined]
    while piece := read(_PIECE):
        yield piece


def _wanted(part: Path) -> dict[str, str]:
    """Headers that ask for the rest of what is here; without an ETag nobody could say whether it is the same file."""
    with contextlib.suppress(OSError):
        etag, size = part.with_suffix(".etag").read_text(encoding="ascii"), part.stat().st_size
        if size and etag and not etag.startswith("W/"):
            return {"Range": f"bytes={size}-", "If-Range": etag}
    return {}


def _drop(part: Path) -> None:
    for path in (part, part.with_suffix(".etag")):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
