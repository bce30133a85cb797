"""The file on a USB stick: signed messages, sealed to one reader. Both ends write and read it with bounded memory.

    file     "AIDSTICK" | length of header (2 bytes) | header | signature (64 bytes) | segment ...
    header   MessagePack [version, sender, recipient, reader's key id, ephemeral X25519 key]
    segment  AES-256-GCM of 64 KiB of plain bytes; the last one is shorter or empty
    plain    length (4 bytes) | message, and so on

The key is HKDF-SHA-256 of the X25519 agreement between a key made for this file and the reader's, with the header and
its signature as salt. A segment's nonce is its number and whether it is the last, as in STREAM (Hoang, Reyhanitabar,
Rogaway and Vizar 2015), so that segments cannot be moved, left out or cut off. Numbers are big-endian.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aidpost.errors import EnvelopeError, StoreError, UnreadableInputError
from aidpost.sync import keys
from aidpost.sync._durable import sync_folder, write_file
from aidpost.sync.envelope import MAX_MESSAGE
from aidpost.sync.topics import is_device_name

SEGMENT = 64 * 1024
_TAG = 16
_MAGIC = b"AIDSTICK"
_VERSION = 1
_CONTEXT = b"aidpost stick 1\x00"
_LONGEST_HEADER = 512

KeyOf = Callable[[str], Ed25519PublicKey | None]


class _Header(msgspec.Struct, array_like=True, frozen=True):
    version: int
    sender: str
    recipient: str
    reader: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    ephemeral: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


_decoder = msgspec.msgpack.Decoder(_Header)


def write(
    path: Path,
    messages: Iterable[bytes],
    *,
    sender: str,
    key: Ed25519PrivateKey,
    recipient: str,
    recipient_key: Ed25519PublicKey,
) -> None:
    """Write `messages` to `path`, whole and on the disk, or leave what was there.

    Raises
    ------
    StoreError
        The stick cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            write_file(temporary, _pieces(messages, sender, key, recipient, recipient_key))
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            operation="writing the file for the stick",
            target=str(path),
            cause=str(error.strerror or error),
            remedy="Make room, or take another stick; nothing is lost.",
        ) from None


def _pieces(
    messages: Iterable[bytes], sender: str, key: Ed25519PrivateKey, recipient: str, recipient_key: Ed25519PublicKey
) -> Iterator[bytes]:
    ephemeral = X25519PrivateKey.generate()
    header = msgspec.msgpack.encode(
        _Header(_VERSION, sender, recipient, _key_id(recipient_key), ephemeral.public_key().public_bytes_raw())
    )
    signature = key.sign(_CONTEXT + header)
    yield _MAGIC + struct.pack(">H", len(header)) + header + signature
    cipher = _cipher(ephemeral.exchange(keys.agreement_public(recipient_key)), header + signature)
    held, number = bytearray(), 0
    for message in messages:
        held += struct.pack(">I", len(message)) + message
        while len(held) >= SEGMENT:
            yield cipher.encrypt(_nonce(number, last=False), bytes(held[:SEGMENT]), None)
            del held[:SEGMENT]
            number += 1
    yield cipher.encrypt(_nonce(number, last=True), bytes(held), None)


def read(path: Path, *, name: str, key: Ed25519PrivateKey, key_of: KeyOf) -> tuple[str, Iterator[bytes]]:
    """The sender, and the messages, which are to be read once.

    All of the file is checked before this returns: a damaged one gives nothing at all.

    Parameters
    ----------
    name, key
        The reader's own.
    key_of
        The public key of a sender that is known here, or None.

    Raises
    ------
    UnreadableInputError
        It cannot be read, is not such a file, is cut off or damaged.
    EnvelopeError
        It is for another reader, from nobody known here, or forged.
    """
    try:
        with path.open("rb") as file:
            sender, cipher = _open(path, file, name, key, key_of)
            for _ in _messages(path, file, cipher):
                pass
    except OSError as error:
        raise _unreadable(path, str(error.strerror or error)) from None
    return sender, _again(path, name, key, key_of)


def _again(path: Path, name: str, key: Ed25519PrivateKey, key_of: KeyOf) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            _, cipher = _open(path, file, name, key, key_of)
            yield from _messages(path, file, cipher)
    except OSError as error:
        raise _unreadable(path, str(error.strerror or error)) from None


def _open(path: Path, file: BinaryIO, name: str, key: Ed25519PrivateKey, key_of: KeyOf) -> tuple[str, AESGCM]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _unreadable(path, "it is no file of `aidpost outbox export` or `aidpost hub import`")
    length = int.from_bytes(file.read(2), "big")
    raw, signature = file.read(min(length, _LONGEST_HEADER)), file.read(64)
    try:
        header = _decoder.decode(raw)
    except msgspec.DecodeError:
        raise _unreadable(path, "its beginning is cut off or damaged") from None
    if header.version != _VERSION:
        raise _refused(path, f"it has version {header.version}, this side reads {_VERSION}", "Update this side.")
    public = key_of(header.sender) if is_device_name(header.sender) else None
    if public is None:
        raise _refused(
            path,
            f"its sender {header.sender!r:.80} is not known here",
            "Enrol the device here, or take it where it belongs.",
        )
    try:
        public.verify(signature, _CONTEXT + raw)
    except InvalidSignature:
        raise _refused(path, "its signature is wrong: damaged, or forged", "Export it again.") from None
    if header.recipient != name or header.reader != _key_id(key.public_key()):
        raise _refused(path, f"it is for {header.recipient!r:.80} with another key", "Take it where it belongs.")
    try:
        shared = keys.agreement_private(key).exchange(X25519PublicKey.from_public_bytes(header.ephemeral))
    except ValueError:
        raise _refused(path, "its key is not one") from None
    return header.sender, _cipher(shared, raw + signature)


def _messages(path: Path, file: BinaryIO, cipher: AESGCM) -> Iterator[bytes]:
    held = bytearray()
    for plain in _segments(path, file, cipher):
        held += plain
        while len(held) >= 4:
            size = int.from_bytes(held[:4], "big")
            if size > MAX_MESSAGE:
                raise _unreadable(path, f"a message in it has {size} bytes, the most is {MAX_MESSAGE}")
            if len(held) < 4 + size:
                break
            yield bytes(held[4 : 4 + size])
            del held[: 4 + size]
    if held:
        raise _unreadable(path, "its last message is not whole")


def _segments(path: Path, file: BinaryIO, cipher: AESGCM) -> Iterator[bytes]:
    number, ahead, last = 0, file.read(SEGMENT + _TAG), False
    while not last:
        sealed, ahead = ahead, file.read(SEGMENT + _TAG)
        last = not ahead
        try:
            yield cipher.decrypt(_nonce(number, last=last), sealed, None)
        except (InvalidTag, ValueError):
            raise _unreadable(path, f"it is cut off or damaged in part {number + 1}") from None
        number += 1


def _cipher(shared: bytes, bound_to: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=hashlib.sha256(bound_to).digest(), info=_CONTEXT).derive(shared))


def _nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">QxxxB", number, last)


def _key_id(key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(keys.public_bytes(key)).digest()[:8]


def _unreadable(path: Path, cause: str) -> UnreadableInputError:
    return UnreadableInputError(
        operation="reading the stick", target=str(path), cause=cause, remedy="Export it again; nothing is lost."
    )


def _refused(path: Path, cause: str, remedy: str = "") -> EnvelopeError:
    return EnvelopeError(operation="reading the stick", target=str(path), cause=cause, remedy=remedy)
