"""One POST to another server, whole or an error."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

TIMEOUT_S = 20.0
_MOST_BYTES = 16 << 20

FAULTS = (OSError, http.client.HTTPException, ValueError)
"""What a POST may raise."""


def post(url: str, body: bytes, headers: dict[str, str], timeout_s: float = TIMEOUT_S) -> bytes:
    """The answer's body where its status is 2xx.

    Raises
    ------
    OSError, http.client.HTTPException, ValueError
        No answer, another status, or a URL that is none.
    """
    status, text = exchange(url, body, headers, timeout_s)
    if not 200 <= status < 300:
        raise http.client.HTTPException(f"it answered {status}: {text[:200].decode(errors='replace')}")
    return text


def exchange(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, bytes]:
    """The answer's status and body; raises as `post`, but for no status."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout_s)
    try:
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = connection.getresponse()
        text = answer.read(_MOST_BYTES)
    finally:
        connection.close()
    return answer.status, text
