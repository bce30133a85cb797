"""From a board to a device of a clinic: key, configuration, sensors, hub, time, sheet.

Each step looks at what is there before it does anything: run again, after an interruption or a change, it does what is
missing and keeps the rest. Nothing private ever leaves the device.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from aidpost.board import configuration
from aidpost.board.detect import detect
from aidpost.board.flash import receipt
from aidpost.board.flash.first_boot import RECEIPT, SETTINGS
from aidpost.errors import AidpostError, ConfigurationError, NotPossibleError, UnreadableInputError, UsageError
from aidpost.sync import enrolment
from aidpost.sync._durable import replace_file, sync_folder
from aidpost.sync.clock import Clock
from aidpost.sync.keys import Identity, public_bytes
from aidpost.sync.store import Store

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOOT_FOLDERS = ("boot/firmware", "boot/efi", "boot")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the device is to be told; empty keeps what it has."""

    clinic: str = ""
    clinic_name: str = ""
    name: str = ""
    hub: str = ""
    hub_name: str = ""
    hub_key: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One step: whether it was done now, was so already, or waits for somebody, and for what."""

    step: str
    state: Literal["done", "kept", "waiting"]
    what: str


def card_settings(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder of the boot partition that this device starts from, and what its card says (`aidpost/setup.toml`).

    Raises
    ------
    UnreadableInputError
        There is none, or it is damaged.
    """
    for name in BOOT_FOLDERS:
        file = root / name / SETTINGS
        if file.is_file():
            try:
                found = tomllib.loads(file.read_text(encoding="utf-8"))["setup"]
                return root / name, {str(key): str(value) for key, value in found.items()}
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise UnreadableInputError(
                    operation="reading the card's settings",
                    target=str(file),
                    cause=str(error),
                    remedy="Write the card again: aidpost board flash run PLAN",
                ) from None
    raise UnreadableInputError(
        operation="reading the card's settings",
        target=SETTINGS,
        cause="the boot partition has none",
        remedy="Give them: aidpost board provision --clinic ID --hub HOST:PORT",
    )


def wanted_of(setup: Mapping[str, str]) -> Wanted:
    """What a card's settings ask of the device itself; the system's own (name, Wi-Fi) the system has done."""
    return Wanted(
        clinic=setup.get("clinic", ""),
        name=setup.get("hostname", ""),
        hub=setup.get("hub", ""),
        hub_name=setup.get("hub_name", ""),
        hub_key=setup.get("hub_key", ""),
    )


def _address(hub: str) -> tuple[str, int | None]:
    parts = urllib.parse.urlsplit(hub if "//" in hub else f"//{hub}")
    try:
        if not parts.hostname:
            raise ValueError
        return parts.hostname, None if parts.scheme.startswith("http") else parts.port
    except ValueError:
        raise UsageError(
            operation="provisioning",
            target=hub,
            cause="it is no address of a hub",
            remedy="HOST, HOST:PORT or https://…",
        ) from None


def configure(path: Path, wanted: Wanted, state_dir: Path) -> Done:
    """Write what is asked for into the configuration file; comments and everything else in it stay. A file that would
    not load afterwards is not written.

    Raises
    ------
    ConfigurationError
        The file is damaged, or a value is not one that its key takes.
    """
    host, port = _address(wanted.hub) if wanted.hub else ("", None)
    key_file = ""
    if wanted.hub_key:
        if not re.fullmatch(r"[0-9a-f]{64}", wanted.hub_key):
            raise UsageError(
                operation="provisioning",
                target="the hub's key",
                cause="it is not 64 hexadecimal digits",
                remedy="As `aidpost hub enroll` prints it.",
            )
        key_file = str(path.parent / "hub.key")
        replace_file(Path(key_file), f"{wanted.hub_key}\n".encode(), 0o644)
    values = {
        ("clinic", "id"): wanted.clinic,
        ("clinic", "name"): wanted.clinic_name,
        ("device", "name"): wanted.name,
        ("sync", "host"): host,
        ("sync", "port"): port,
        ("sync", "hub_name"): wanted.hub_name,
        ("sync", "hub_key_file"): key_file,
    }
    changed = _write(path, {name: value for name, value in values.items() if value})
    if not changed:
        return Done(step="configuration", state="kept", what=f"{path} says it already")
    return Done(step="configuration", state="done", what=str(path))


def _write(path: Path, values: Mapping[tuple[str, str], Any]) -> bool:
    """Put values into the configuration file; False where it says them already."""
    import tomlkit
    import tomlkit.exceptions

    try:
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        document = tomlkit.parse(old)
    except (OSError, tomlkit.exceptions.TOMLKitError) as error:
        raise ConfigurationError(
            operation="reading the configuration", target=str(path), cause=str(error), remedy="Correct the file."
        ) from None
    for (section, key), value in values.items():
        document.setdefault(section, tomlkit.table())[key] = value
    new = tomlkit.dumps(document)
    if new == old:
        return False
    trial = path.with_name(f".{path.name}.new")
    replace_file(trial, new.encode(), 0o640)
    try:
        configuration.load(trial)
    except ConfigurationError:
        trial.unlink()
        raise
    trial.replace(path)
    sync_folder(path.parent)
    return True


PROOF_S = 2.0
"""An ECG board that gives this much of a recording works, whatever it is connected to."""


def open_sensor(key: str, source: str) -> str:
    """Prove that a sensor is there, and say what it is. A Bluetooth one is paired with, an ECG recorded for a moment,
    a camera takes a picture. Other vital signs wait for a person.

    Raises
    ------
    AidpostError
        It is not there, or gives nothing.
    """
    from aidpost.firmware_bridge.clock import SystemClock
    from aidpost.firmware_bridge.ports.ble import BleSource
    from aidpost.firmware_bridge.ports.camera import CameraSource
    from aidpost.firmware_bridge.sources import open_source

    with contextlib.closing(open_source(source, clock=SystemClock(0))) as opened:
        if isinstance(opened, BleSource):
            return f"{source}, paired with {opened.pair().name}"
        if key == "ecg":
            opened.read_ecg(PROOF_S)
        elif isinstance(opened, CameraSource):
            opened.read_photo()
    return source


def sensor_step(path: Path, key: str, source: str, prove: Callable[[str, str], str] = open_sensor) -> Done:
    """Prove a sensor and write it into `sensors.KEY`; one that does not answer is waited for, and not written.

    Parameters
    ----------
    key
        `ecg`, `fundus_right`, `fundus_left` or `vitals`, which takes several.
    """
    has = getattr(configuration.load(path).sensors, key)
    if source == has or (isinstance(has, tuple) and source in has):
        return Done(step=f"sensor {key}", state="kept", what=source)
    try:
        what = prove(key, source)
    except AidpostError as error:
        return Done(step=f"sensor {key}", state="waiting", what=f"{source}: {error.cause}; {error.remedy}".rstrip("; "))
    _write(path, {("sensors", key): [*has, source] if isinstance(has, tuple) else source})
    return Done(step=f"sensor {key}", state="done", what=what)


def clock_step(clock: Clock) -> Done:
    """Whether the time can be believed: a certificate and a report need it, an exam does not."""
    if clock.synced():
        return Done(step="time", state="kept", what="confirmed by a time server")
    what = "not confirmed since this start: timedatectl set-ntp true, or set it by hand"
    return Done(step="time", state="waiting", what=what)


def enrol_step(store: Store, state_dir: Path, code: str, clock: Clock) -> Done | None:
    """Enrol at the hub's own authority with the code that it printed, once; None without a code and an enrolment.

    Raises
    ------
    EnrolmentError
        The code is damaged, used or too old, or the hub cannot be reached. Repeat with the same code.
    """
    folder = state_dir / enrolment.FOLDER
    enrolled = enrolment.load(folder, store.key)
    if enrolled is not None:
        return Done(step="hub", state="kept", what=f"enrolled at {enrolled.url}")
    if not code:
        return None
    enrolled = enrolment.enroll(code, store.identity, store.key, folder, synced=clock.synced())
    return Done(step="hub", state="done", what=f"enrolled at {enrolled.url}")


def hub_step(config: configuration.Configuration, identity: Identity) -> Done:
    """Whether the device knows its hub; the hub must be told the device's key by a person, or by its certificate."""
    key = public_bytes(identity.public).hex()
    if config.sync.hub_key_file and Path(config.sync.hub_key_file).is_file():
        return Done(step="hub", state="kept", what=f"{config.sync.host}:{config.sync.port}, {config.sync.hub_name}")
    what = (
        f"at the hub: aidpost hub enroll {identity.name} {key}; then here: --hub-name and --hub-key as it prints them"
    )
    return Done(step="hub", state="waiting", what=what)


def sheet(
    path: Path, identity: Identity, config: configuration.Configuration, board: str, enrolled_at: str = ""
) -> Done:
    """The sheet that goes with the device: who it is, as text and as a QR code that the hub's operator scans. It holds
    public things only.

    Raises
    ------
    NotPossibleError
        The library that draws codes is not installed.
    """
    try:
        import segno
    except ImportError:
        raise NotPossibleError(
            operation="drawing the sheet",
            target=str(path),
            cause="segno is not installed",
            remedy='pip install "aidpost[provision]"',
        ) from None
    key = public_bytes(identity.public).hex()
    sensors = config.sensors
    said = {"aidpost": 1, "name": identity.name, "key": key, "clinic": config.clinic.id}
    drawing = segno.make(msgspec.json.encode(said), error="m", micro=False).svg_inline(scale=6)
    rows = {
        "Device": identity.name,
        "Clinic": " ".join(filter(None, (config.clinic.id, config.clinic.name))),
        "Board": board,
        "Hub": enrolled_at or f"{config.sync.host}:{config.sync.port}",
        "Sensors": ", ".join(filter(None, (sensors.ecg, sensors.fundus_right, sensors.fundus_left, *sensors.vitals))),
        "Public key": " ".join(key[at : at + 8] for at in range(0, 64, 8)),
    }
    if not enrolled_at:
        rows["At the hub"] = f"aidpost hub enroll {identity.name} {key}"
    table = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Aidpost device</title><style>'
        "@page{size:A4;margin:20mm}body{font:14px sans-serif}"
        "th{text-align:left;padding:4px 12px 4px 0;vertical-align:top}"
        "td{font-family:monospace;overflow-wrap:anywhere}</style>"
        f"<h1>{html.escape(identity.name)}</h1>{drawing}<table>{table}</table>\n"
    )
    if path.is_file() and path.read_text(encoding="utf-8") == page:
        return Done(step="sheet", state="kept", what=str(path))
    replace_file(path, page.encode(), 0o644)
    return Done(step="sheet", state="done", what=str(path))


def _ssid() -> str:
    """The network that this device is in, by the kernel's word."""
    try:
        done = subprocess.run(["iw", "dev"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"^\s*ssid (.+)$", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def applied(
    root: Path, asked: Mapping[str, str], config: configuration.Configuration, ssid: Callable[[], str] = _ssid
) -> dict[str, str]:
    """What this system really has of what its card asked for; a setting that it has not is left out."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        found["hostname"] = (root / "etc/hostname").read_text(encoding="utf-8").strip()
    with contextlib.suppress(OSError):
        accounts = {line.split(":")[0] for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines()}
        if asked.get("user", "") in accounts:
            found["user"] = asked["user"]
    with contextlib.suppress(OSError):
        found["timezone"] = str((root / "etc/localtime").readlink()).partition("zoneinfo/")[2]
    if asked.get("wifi_ssid"):
        found["wifi_ssid"] = ssid()
    if asked.get("hub") and _address(asked["hub"])[0] == config.sync.host:
        found["hub"] = asked["hub"]
    if config.clinic.id == asked.get("clinic"):
        found["clinic"] = config.clinic.id
    return {key: value for key, value in found.items() if value}


def leave_receipt(
    boot: Path,
    root: Path,
    setup: Mapping[str, str],
    config: configuration.Configuration,
    identity: Identity,
    ssid: Callable[[], str] = _ssid,
) -> list[Done]:
    """Sign what the first boot has done, leave it on the card, and send it to whoever flashed it."""
    if not setup.get("nonce"):
        return [Done(step="receipt", state="waiting", what="the card has no number: it was not written by a plan")]
    content = receipt.make(setup["nonce"], identity, detect(root).model, applied(root, setup, config, ssid))
    (boot / RECEIPT).write_bytes(content)
    descriptor = os.open(boot / RECEIPT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    done = [Done(step="receipt", state="done", what=str(boot / RECEIPT))]
    if setup.get("report_to"):
        done.append(_report(setup["report_to"], content))
    return done


def _report(where: str, content: bytes) -> Done:
    if not where.startswith(("http://", "https://")):
        return Done(step="report", state="waiting", what=f"{where} is no http address")
    try:
        urllib.request.urlopen(f"{where.rstrip('/')}/receipt", content, timeout=10).close()
    except (OSError, ValueError) as error:
        return Done(step="report", state="waiting", what=f"{where} does not take it ({error}); it is on the card")
    return Done(step="report", state="done", what=where)
