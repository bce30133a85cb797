"""The doctor's checks of the software: runtime, models, kernels, key, certificates, hub, outbox."""

from __future__ import annotations

import fcntl
import importlib
import os
import pkgutil
import sqlite3
import stat
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from cryptography import x509

from aidpost import kernels as kernels_package
from aidpost.board import _tree, device
from aidpost.board._check import Answer, Surroundings
from aidpost.errors import AidpostError
from aidpost.records import Timestamp
from aidpost.sync import enrolment, keys, outbox
from aidpost.sync._schema import VERSION, tells_of_data
from aidpost.sync._space import days_left
from aidpost.sync.clock import Clock
from aidpost.sync.store import Store

EXPIRES_SOON_DAYS = 30
WAITS_LONG_DAYS = 7
ROOM_IS_SHORT_DAYS = 14
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_PROVISION = "put the file there again, or have the hub enrol the device again"
_PIP = "pip install --force-reinstall aidpost"


def runtime(at: Surroundings) -> Answer:
    """Whether a model runtime works here: a small model has run on it; and by what it computes."""
    found = at.runtimes()
    if not found:
        # LiteRT has no wheel for a 32-bit system
        package = "ai-edge-litert" if sys.maxsize > 2**32 else '"aidpost[tflite]"'
        return Answer("failed", "no model runtime works here", f"pip install {package}")
    delegates = {name: at.delegate(name) for name in found}
    why = ", ".join(f"{name} {f'with {by}' if by else 'without a delegate'}" for name, by in delegates.items())
    if idle := _tree.names(at.root / "dev", r"apex_\d+|hailo\d+"):
        why += f"; {', '.join(idle)} is there and not used: models run on the processor"
    if not delegates[found[0]]:
        return Answer("warning", f"{why}: models are many times slower", "pip install --upgrade ai-edge-litert")
    return Answer("ok", why)


def models(at: Surroundings) -> Answer:
    """Hash, card and golden recordings of every model, on every runtime."""
    checks = at.verify_models(at.model_roots)
    if not checks:
        return Answer("failed", "no model was found, or no runtime to try it on", "aidpost models verify")
    broken = [f"{check.name} on {check.runtime}: {check.error.cause}" for check in checks if check.error]
    if broken:
        return Answer("failed", "; ".join(broken), "aidpost models verify; reinstall what does not match")
    return Answer("ok", ", ".join(dict.fromkeys(f"{check.name} {check.version}" for check in checks)))


def kernels(at: Surroundings) -> Answer:
    """Whether every kernel has its compiled extension: there is no slow path that could stand in."""
    names = [one.name for one in pkgutil.iter_modules(kernels_package.__path__) if not one.name.startswith("_")]
    broken = []
    for name in names:
        try:
            importlib.import_module(f"{kernels_package.__name__}.{name}")
        except ImportError as error:
            broken.append(f"{name}: {error}")
    if broken or not names:
        return Answer("failed", "; ".join(broken) or "there are no kernels", _PIP)
    return Answer("ok", f"{sum(not name.startswith('reference') for name in names)} kernels with their extensions")


def device_key(at: Surroundings) -> Answer:
    """Where the key lies that opens the records, and what a stolen card is worth with it."""
    source, store = at.configuration.store.key, at.state_dir / "store.sqlite3"
    if source == "passphrase":
        return Answer("ok", "asked for at start: nothing on the card opens the records")
    if source == "systemd-credential":
        return _credential(at)
    path = at.state_dir / "device.key"
    if not path.exists() and store.exists():
        return Answer("failed", f"{path} is missing: the records do not open", "restore the key file from its backup")
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Answer("failed", f"other users of this machine may read {path}", f"chmod 600 {path}")
    why = f"weak: {path} is on the same disk as the records, and who takes the card has both"
    return Answer("warning", why, "aidpost board rotate-key --to systemd-credential, or --to passphrase")


def speech(at: Surroundings) -> Answer:
    """Whether what the screen is to say aloud can be said, in the language that it begins with."""
    section = at.configuration.console
    if not section.speak:
        return Answer("ok", "off: the screen says nothing aloud (console.speak)")
    from aidpost.board.console.speech import PACKAGE, lacking

    why = lacking(section.language)
    return Answer("warning", why, PACKAGE) if why else Answer("ok", f"the screen speaks ({section.language})")


def _credential(at: Surroundings) -> Answer:
    given = at.credentials is not None and (at.credentials / keys.CREDENTIAL).exists()
    if not _tree.names(at.root / "sys/class/tpm", r"tpm\d+"):
        why = "weak: there is no TPM, so the key of the systemd credential lies on the same disk as the records"
        return Answer("warning", why, "fit a TPM, or: aidpost board rotate-key --to passphrase")
    if not given:
        why = "a systemd credential, given to the service only: not seen from here"
        return Answer("ok", why)
    return Answer("ok", "a systemd credential, and there is a TPM")


def certificates(at: Surroundings) -> Answer:
    """The certificates that the configuration names, their keys, and the days left."""
    section, own_hub = at.configuration.sync, at.configuration.hub
    public = {f"hub.{key}": own_hub.get(key, "") for key in ("broker_ca", "broker_certificate", "tls_certificate")}
    private = {f"hub.{key}": own_hub.get(key, "") for key in ("broker_key", "tls_key")}
    if section.tls:
        public |= {"sync.ca_file": section.ca_file, "sync.certificate_file": section.certificate_file}
        private |= {"sync.key_file": section.key_file}
        lacking = [key for key, path in (public | private).items() if key.startswith("sync.") and not path]
        if lacking:
            return Answer("failed", f"sync.tls is on without {', '.join(lacking)}", "set them in the configuration")
    answers = [_private_key(key, Path(path)) for key, path in private.items() if path]
    for key, path in public.items():
        answers += _certificates_in(key, Path(path), at.clock) if path else []
    try:
        if told := enrolment.told(at.state_dir / enrolment.FOLDER):
            answers.append(_certificate("enrolment", told.certificate, at.clock))
    except AidpostError as error:
        answers.append(Answer("failed", f"{error.target}: {error.cause}", error.remedy))
    if not section.tls and section.enabled and section.hub_key_file and section.host not in _THIS_MACHINE:
        why = "sync.tls is off: what the device sends can be read on its way"
        answers.append(Answer("warning", why, "set sync.tls = true, and its three files"))
    worst = min(answers, key=lambda answer: ("failed", "warning", "ok").index(answer.state), default=None)
    if worst is None:
        return Answer("ok", "none are configured")
    return worst if worst.state != "ok" else Answer("ok", "; ".join(answer.why for answer in answers))


def _private_key(key: str, path: Path) -> Answer:
    if not path.is_file():
        return Answer("failed", f"{key}: {path} is not there", _PROVISION)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Answer("failed", f"{key}: other users of this machine may read {path}", f"chmod 600 {path}")
    return Answer("ok", f"{key} is its owner's only")


def _certificates_in(key: str, path: Path, clock: Clock) -> list[Answer]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        return [Answer("failed", f"{key}: {path}: {error}", _PROVISION)]
    return [_certificate(key, one, clock) for one in found]


def _certificate(key: str, one: x509.Certificate, clock: Clock) -> Answer:
    now = datetime.fromtimestamp(clock.wall_ms() / 1000, timezone.utc)
    days = (one.not_valid_after_utc - now).days
    if now < one.not_valid_before_utc:
        # nearly always the clock of a board without a battery, and not the certificate
        why = f"{key}: not valid before {one.not_valid_before_utc:%Y-%m-%d}, and the clock says {now:%Y-%m-%d}"
        return Answer("failed", why, "set the clock first: timedatectl set-ntp true")
    if now > one.not_valid_after_utc:
        why = f"{key}: expired on {one.not_valid_after_utc:%Y-%m-%d}"
        return Answer("failed", why, "ask the hub for a new one, and give it to the device")
    why = f"{key}: {days} days left"
    if days < EXPIRES_SOON_DAYS:
        return Answer("warning", why, "ask the hub for a new one before it ends")
    return Answer("ok", why)


def hub(at: Surroundings) -> Answer:
    """Whether the hub's broker takes a connection. It says nothing of the hub behind it: only receipts do."""
    section = at.configuration.sync
    if not section.enabled:
        return Answer("ok", "sending is switched off (sync.enabled)")
    try:
        told = None if section.hub_key_file else enrolment.told(at.state_dir / enrolment.FOLDER)
        if told is None and not section.hub_key_file:
            return Answer("warning", "no hub is configured: reports stay on this device", "aidpost board provision")
        broker = told or device.link(at.configuration)
    except AidpostError as error:
        return Answer("failed", f"{error.target}: {error.cause}", error.remedy)
    where = f"{broker.host}:{broker.port}"
    try:
        at.connect(broker.host, broker.port, at.deadline_s)
    except OSError as error:
        # an exam needs no network, so a clinic without one for a day has a device that is well
        why = f"the broker at {where} cannot be reached: {error.strerror or error}; reports wait on the disk"
        return Answer("warning", why, f"ping {broker.host}; check the network, sync.host and sync.port")
    return Answer("ok", f"the broker at {where} takes connections")


class _StoreReader:
    """The database of a store, opened to be read: no key, no counter of starts, and nobody else's lock."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows, as `Store.read` gives them."""
        return self._connection.execute(query, values).fetchall()

    def now(self) -> Timestamp:
        """The present moment; which start of the device it is does not matter to an age."""
        return Timestamp(wall_ms=self._clock.wall_ms(), monotonic_ms=0, boot=0, synced=self._clock.synced())

    def close(self) -> None:
        self._connection.close()


def outbox_state(at: Surroundings) -> Answer:
    """How much waits for the hub, how long the oldest has waited, and what the hub refused."""
    path = at.state_dir / "store.sqlite3"
    if not path.exists():
        return Answer("ok", "no record has been made yet")
    reader = _StoreReader(path, at.clock)
    try:
        return _outbox(path, reader, at)
    except sqlite3.DatabaseError as error:
        # "locked" and "unable to open" say nothing of the data; a file that is no database does
        if not tells_of_data(error):
            raise
        return _damaged(path, str(error))
    finally:
        reader.close()


def _damaged(path: Path, verdict: str) -> Answer:
    why = f"{path} is damaged: {verdict}"
    return Answer("failed", why, "start the device again: it recovers what is whole, and keeps the rest in quarantine/")


def _outbox(path: Path, reader: _StoreReader, at: Surroundings) -> Answer:
    ((verdict,),) = reader.read("PRAGMA quick_check(1)")
    if verdict != "ok":
        return _damaged(path, verdict)
    ((version,),) = reader.read("PRAGMA user_version")
    if version > VERSION:
        return Answer("failed", f"a newer version wrote it (schema {version})", "update aidpost on this device")
    # only `read` and `now` of a store are used for this
    classes = outbox.status(cast(Store, reader))
    queued, dead = sum(one.queued for one in classes), sum(one.dead for one in classes)
    oldest = max((one.oldest_s for one in classes if one.oldest_s is not None), default=0)
    why = f"{queued} records wait, the oldest for {_time(oldest)}" if queued else "nothing waits"
    if said := _notes(reader):
        return Answer("warning", f"{said}; {why}", "aidpost outbox status; tell whoever looks after the devices")
    days = _days_left(reader, at)
    if days is not None:
        why += f"; room for {days} days of work, if the hub stays away"
    if dead:
        why = f"the hub refused {dead} records; {why}"
        return Answer("warning", why, "aidpost outbox status shows the reasons; then: aidpost outbox retry")
    if oldest > WAITS_LONG_DAYS * 86_400 or (days is not None and days < ROOM_IS_SHORT_DAYS):
        return Answer("warning", why, "connect the device to the hub's network, or: aidpost outbox status")
    return Answer("ok", why)


def _days_left(reader: _StoreReader, at: Surroundings) -> int | None:
    if not reader.read("SELECT 1 FROM sqlite_schema WHERE name = 'intake'"):
        return None  # of the version before
    return days_left(at.state_dir, device.budget(at.configuration), reader.read, at.free_bytes(at.state_dir))


def _notes(reader: _StoreReader) -> str:
    """What happened to the store that people should know."""
    if not reader.read("SELECT 1 FROM sqlite_schema WHERE name = 'note'"):
        return ""  # of the version before
    return "; ".join(f"{what}: {detail}" for what, detail in reader.read("SELECT what, detail FROM note"))


def _time(seconds: int) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def sender(at: Surroundings) -> Answer:
    """Which process sends for this store. /proc/locks is read first, for it names the process."""
    path = at.state_dir / "sender.lock"
    if not path.exists():
        return Answer("ok", "no process has sent from here yet")
    inode = path.stat().st_ino
    for line in (_tree.text(at.root / "proc/locks") or "").splitlines():
        fields = line.split()
        # "1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF"; the device's number is another one on btrfs and overlayfs
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            name = _tree.text(at.root / "proc" / fields[4] / "comm") or "name unknown"
            return Answer("ok", f"process {fields[4]} ({name}) owns the sender")
    return Answer("ok", "another process owns the sender" if _held(path) else "no process owns the sender")


def _held(path: Path) -> bool:
    """Whether somebody holds the lock who is not in the table, as from within a container."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # shared, and held for microseconds: a sender that starts within them is refused, and starts again
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
