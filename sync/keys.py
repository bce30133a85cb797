"""Who the device is, and the key that everything at rest hangs on.

The device key wraps the identity and one data key per patient; those seal the records. Erasing a patient is erasing
their data key. Where the device key comes from decides what a stolen card is worth; see `DeviceKey.weak`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from aidpost.errors import KeyUnavailableError
from aidpost.sync import seal
from aidpost.sync._durable import make_folder, replace_file

CREDENTIAL = "aidpost-device-key"
"""Name of the systemd credential: `LoadCredentialEncrypted=aidpost-device-key` in the unit."""

_SALT = "device-key.salt"
_FIELD = 2**255 - 19
# 64 MiB and a quarter of a second on a Pi 4: the least that makes guessing a short passphrase costly
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**16, 8, 1


@dataclass(frozen=True)
class DeviceKey:
    """The 32 bytes that open this device's store, and how they were come by.

    `weak` is true where the key lies beside the data, so that whoever takes the card has both.
    """

    secret: bytes = field(repr=False)
    source: str
    weak: bool = False

    def __post_init__(self) -> None:
        if len(self.secret) != seal.KEY_BYTES:
            raise _unavailable(self.source, f"it has {len(self.secret)} bytes, not {seal.KEY_BYTES}")


@dataclass(frozen=True)
class Identity:
    """The device's name and its Ed25519 key, made on the device; the private half never leaves it unsealed."""

    name: str
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def create(cls, name: str | None = None) -> Identity:
        """A new identity; without a name it takes one from its public key."""
        private = Ed25519PrivateKey.generate()
        return cls(name or "d" + hashlib.sha256(public_bytes(private.public_key())).hexdigest()[:12], private)

    @property
    def public(self) -> Ed25519PublicKey:
        """The half that the hub is given at enrolment."""
        return self.private.public_key()

    def to_bytes(self) -> bytes:
        """The private key (32 bytes) and the name: to be sealed, never stored as it is."""
        raw = self.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return raw + self.name.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """What `to_bytes` gave."""
        return cls(data[32:].decode(), Ed25519PrivateKey.from_private_bytes(data[:32]))


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key, as enrolment and configuration write them (in hex)."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_key(data: bytes) -> Ed25519PublicKey:
    """A public key from its 32 bytes."""
    return Ed25519PublicKey.from_public_bytes(data)


def agreement_private(key: Ed25519PrivateKey) -> X25519PrivateKey:
    """The X25519 key that belongs to a signing key, so that whoever knows the one public key can also seal to it: the
    secret scalar of RFC 8032, 5.1.5."""
    return X25519PrivateKey.from_private_bytes(hashlib.sha512(key.private_bytes_raw()).digest()[:32])


def agreement_public(key: Ed25519PublicKey) -> X25519PublicKey:
    """The public half of `agreement_private`, from the public signing key: u = (1 + y) / (1 - y), RFC 7748, 4.1."""
    y = int.from_bytes(public_bytes(key), "little") & ((1 << 255) - 1)
    u = (1 + y) * pow(1 - y, -1, _FIELD) % _FIELD
    return X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))


def from_passphrase(state_dir: Path, passphrase: str) -> DeviceKey:
    """The device key from what the worker types at start. The salt is made once and lies in `state_dir`."""
    kept = salt(state_dir)
    used = kept or os.urandom(16)
    key = derived(passphrase, used)
    if not kept:
        make_folder(state_dir)
        place_salt(state_dir, used)
    return key


def derived(passphrase: str, salt: bytes) -> DeviceKey:
    """The device key that a passphrase and a salt make."""
    if not passphrase:
        raise _unavailable("passphrase", "it is empty")
    scrypt = Scrypt(salt=salt, length=seal.KEY_BYTES, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    return DeviceKey(scrypt.derive(passphrase.encode()), "passphrase")


def salt(state_dir: Path) -> bytes:
    """What this device's passphrase is salted with; empty where it has none."""
    try:
        return (state_dir / _SALT).read_bytes()
    except FileNotFoundError:
        return b""


def place_salt(state_dir: Path, salt: bytes) -> None:
    """From now on the passphrase is salted with this."""
    replace_file(state_dir / _SALT, salt)


def from_credential(credentials: Path) -> DeviceKey:
    """The device key that systemd has decrypted (with the TPM where there is one) into its credentials folder."""
    try:
        return DeviceKey((credentials / CREDENTIAL).read_bytes(), "systemd credential")
    except OSError as error:
        remedy = f"Add LoadCredentialEncrypted={CREDENTIAL} to the unit, or give a passphrase."
        raise _unavailable("systemd credential", str(error.strerror), remedy) from None


def from_file(path: Path, *, create: bool = False) -> DeviceKey:
    """The device key from a plain file: it protects against nothing but a lost database, and is marked weak."""
    if create and not path.exists():
        make_folder(path.parent)
        place_file(path, seal.new_key())
    try:
        return DeviceKey(path.read_bytes(), f"key file {path}", weak=True)
    except OSError as error:
        raise _unavailable(str(path), str(error.strerror), "Restore the key file, or give the passphrase.") from None


def place_file(path: Path, secret: bytes) -> None:
    """From now on the key file holds this."""
    replace_file(path, secret, mode=0o600)


def _unavailable(target: str, cause: str, remedy: str = "") -> KeyUnavailableError:
    return KeyUnavailableError(operation="getting the device key", target=target, cause=cause, remedy=remedy)
