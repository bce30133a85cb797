"""The board's own word that its first boot did what the card asked: signed with the key it made there, with the number
that only this card carries. It lies on the card, or is sent to the technician's computer over the network."""

from __future__ import annotations

import http.server
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature

from aidpost.errors import UnreadableInputError
from aidpost.sync.keys import Identity, public_bytes, public_key

_CONTEXT = b"aidpost.receipt/1\0"
MAX_BYTES = 16 * 1024


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the board found set after its first boot: setting -> value as it is there, not as it was asked for."""

    nonce: str
    device: str
    public_key: str
    board: str
    applied: dict[str, str]


class _Signed(msgspec.Struct, frozen=True):
    receipt: str
    signature: str


def signed(receipt: Receipt, identity: Identity) -> bytes:
    """The receipt as it lies on the card."""
    text = msgspec.json.encode(receipt)
    made = identity.private.sign(_CONTEXT + text)
    return msgspec.json.format(msgspec.json.encode(_Signed(text.decode(), made.hex())))


def make(nonce: str, identity: Identity, board: str, applied: Mapping[str, str]) -> bytes:
    """A signed receipt of this board."""
    key = public_bytes(identity.public).hex()
    return signed(
        Receipt(nonce=nonce, device=identity.name, public_key=key, board=board, applied=dict(applied)), identity
    )


def read(content: bytes, source: str) -> Receipt:
    """A receipt whose signature is that of the key it names.

    Raises
    ------
    UnreadableInputError
        It is none, cut off, or was altered.
    """
    try:
        if len(content) > MAX_BYTES:
            raise ValueError("too large for a receipt")
        outer = msgspec.json.decode(content, type=_Signed)
        found = msgspec.json.decode(outer.receipt, type=Receipt)
        key = public_key(bytes.fromhex(found.public_key))
        key.verify(bytes.fromhex(outer.signature), _CONTEXT + outer.receipt.encode())
    except (ValueError, msgspec.MsgspecError, InvalidSignature) as error:
        cause = "it was altered" if isinstance(error, InvalidSignature) else str(error)
        raise UnreadableInputError(
            operation="reading the board's receipt",
            target=source,
            cause=cause,
            remedy="Boot the board from this card once more, then: aidpost board flash confirm",
        ) from None
    return found


def differences(asked: Mapping[str, Any], receipt: Receipt) -> list[str]:
    """What was asked for and is not so on the board; empty where the first boot did all of it."""
    return [
        f"{name}: asked for {value!r}, and the board has {receipt.applied.get(name, 'nothing')!r}"
        for name, value in asked.items()
        if value and receipt.applied.get(name) != str(value)
    ]


class Listener:
    """Takes the receipts that boards send to `http://HOST:PORT/receipt`; each goes to `take`, and what that raises is
    the board's answer."""

    def __init__(self, host: str, port: int, take: Callable[[bytes, str], None]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                try:
                    size = int(self.headers.get("content-length", ""))
                    if self.path != "/receipt" or not 0 < size <= MAX_BYTES:
                        raise ValueError("a receipt is posted to /receipt")
                    take(self.rfile.read(size), self.client_address[0])
                except (ValueError, UnreadableInputError) as error:
                    self.send_error(400, str(error)[:200].encode("ascii", "replace").decode())
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the terminal shows the boards, not requests."""

        self._server = http.server.HTTPServer((host, port), Handler)
        self.port = int(self._server.server_address[1])

    def wait(self, until: Callable[[], bool], deadline_s: float) -> bool:
        """Serve until `until` says so or the deadline is over; whether it said so."""
        end = time.monotonic() + deadline_s
        self._server.timeout = 0.2
        with self._server:
            while not until():
                if time.monotonic() > end:
                    return False
                self._server.handle_request()
        return True
