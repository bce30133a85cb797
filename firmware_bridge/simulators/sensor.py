"""What a simulated Bluetooth sensor is made of: services, characteristics, and what it sends and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

BASE_UUID = "0000{}-0000-1000-8000-00805f9b34fb"


def long_uuid(uuid: str) -> str:
    """A 16-bit UUID (four hexadecimal digits) in full, as BlueZ gives it; a full one as it is."""
    return BASE_UUID.format(uuid.lower()) if len(uuid) == 4 else uuid.lower()


@dataclass(frozen=True)
class Characteristic:
    """`value`, or what `on_read` gives, is read; `sends` follow each other, `interval_s` apart, to whoever subscribes;
    `on_write` gets what is written and gives (uuid, bytes) to be sent."""

    uuid: str
    flags: tuple[str, ...] = ("read",)
    value: bytes = b""
    sends: tuple[bytes, ...] = ()
    interval_s: float = 0.05
    on_write: Callable[[bytes], list[tuple[str, bytes]]] | None = None
    on_read: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Sensor:
    """A device: its services are UUIDs with their characteristics. After `drops_after` values sent it disconnects
    once. It refuses the first `refuses` connections, as a busy radio does."""

    address: str
    name: str
    services: dict[str, tuple[Characteristic, ...]] = field(default_factory=dict)
    drops_after: int | None = None
    connectable: bool = True
    pairable: bool = True
    refuses: int = 0


Link = Callable[[str, bytes], list[bytes]]
"""What becomes of a characteristic's value on its way: what arrives instead, nothing of one that is lost."""
