"""`aidpost devices`: sensors, from the bytes up."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from aidpost.board.cli import Settings, print_error
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.errors import AidpostError, UsageError
from aidpost.firmware_bridge.clock import SystemClock
from aidpost.firmware_bridge.sources import SOURCES, Kind, SourceSpec, open_source, parse_source
from aidpost.firmware_bridge.states import KEPT_IN, SensorState, SensorStates, read_kept
from aidpost.records import Eye

RAW_SUFFIXES = (".aidcap", ".bin")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
CLOCK = SystemClock(boot=0)


@click.group()
def devices() -> None:
    """Sensors: list, scan, pair, decode, record, replay, calibrate, simulate."""


@devices.command("list")
@json_option
@settings_of
def list_(settings: Settings, as_json: bool) -> None:
    """The configured sensors and how each is, while the device runs; then the sources, boards and characteristics that
    have a decoder.

    Example: aidpost devices list --json
    """
    from aidpost.firmware_bridge.boards import BOARDS
    from aidpost.firmware_bridge.decoders.catalogue import CHARACTERISTICS

    characteristics = {key: title for key, (title, _) in CHARACTERISTICS.items()}
    states = _states(settings)
    if as_json:
        boards = {name: board.title for name, board in BOARDS.items()}
        sensors = [{**vars(state), "link": state.link.value} for state in states]
        print_json({"sensors": sensors, "sources": list(SOURCES), "boards": boards, "characteristics": characteristics})
        return
    if states:
        click.echo("sensors:")
    for state in states:
        click.echo(f"  {state.source}  {_said_of(state)}")
    click.echo("sources:  " + ", ".join(f"{name}:" for name in SOURCES))
    click.echo("boards:   " + ", ".join(BOARDS))
    click.echo("Bluetooth characteristics:")
    for key, title in characteristics.items():
        click.echo(f"  {key if len(key) > 4 else '0x' + key}  {title}")


def _states(settings: Settings) -> list[SensorState]:
    """What the configuration names, as the device that runs finds it; then what it has tried besides."""
    kept = {state.source: state for state in read_kept(settings.state_dir / KEPT_IN)}
    configured = SensorStates().of(load_configuration(settings).sensors.sources)
    return [kept.pop(state.source, state) for state in configured] + list(kept.values())


def _said_of(state: SensorState) -> str:
    said = [f"{state.link.value}" + (f" ({state.reason})" if state.reason else "")]
    if state.heard_ago_s is not None:
        said.append(f"last heard {_ago(state.heard_ago_s)} ago")
    if state.battery_percent is not None:
        said.append(f"battery {state.battery_percent} %")
    if state.lead_off:
        said.append(f"no contact: {', '.join(state.lead_off)}")
    named = f"{state.name}: " if state.name else ""
    return named + ", ".join(said) + (f". {state.remedy}" if state.remedy else "")


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@devices.command()
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Listen for so long.")
@click.option("--bluetooth/--no-bluetooth", default=True, help="Whether to listen for Bluetooth sensors.")
@click.option("--recognise", is_flag=True, help="Open each serial port, and tell its board by what it sends.")
@json_option
def scan(seconds: float, bluetooth: bool, recognise: bool, as_json: bool) -> None:
    """What is plugged in or in the air, each with the source that opens it.

    Example: aidpost devices scan --seconds 5
    """
    import asyncio

    from aidpost.firmware_bridge import discovery

    found, failed = discovery.serial_ports() + discovery.video_devices(), None
    if recognise:
        found = [discovery.recognise(item, CLOCK) if item.source.startswith("serial:") else item for item in found]
    if bluetooth:
        try:
            found += asyncio.run(discovery.bluetooth_sensors(seconds))
        except AidpostError as error:
            failed = error
    if as_json:
        print_json({"found": [vars(item) for item in found], "problem": failed.cause if failed else None})
    else:
        for item in found:
            click.echo(f"{item.source}  {item.name}" + (f"  ({item.details})" if item.details else ""))
        if not found:
            click.echo("nothing found", err=True)
    if failed is not None:
        print_error(failed)
        sys.exit(0 if found else failed.exit_code)


@devices.command()
@click.argument("source")
@json_option
def pair(source: str, as_json: bool) -> None:
    """Pair with a Bluetooth sensor, so that it knows this device.

    Example: aidpost devices pair ble:AA:BB:CC:DD:EE:FF
    """
    from aidpost.firmware_bridge.ports.ble import BleSource

    with contextlib.closing(open_source(source, clock=CLOCK)) as opened:
        if not isinstance(opened, BleSource):
            raise opened_as(source, "is no Bluetooth sensor", "Write ble:ADDRESS, as devices scan shows it.")
        device = opened.pair()
    if as_json:
        print_json({"source": source, "name": device.name, "address": device.address, "model": device.model})
    else:
        click.echo(f"paired with {device.name} ({device.address})")


def opened_as(source: str, cause: str, remedy: str) -> UsageError:
    """An error about a source that cannot do what the command wants; the caller raises it."""
    return UsageError(operation="opening a source", target=source, cause=cause, remedy=remedy)


@devices.command()
@click.argument("what")
@click.argument("hex_bytes", metavar="HEX")
def decode(what: str, hex_bytes: str) -> None:
    """What a decoder makes of these bytes, as JSON.

    Example: aidpost devices decode 0x2A37 0055
    """
    from aidpost.firmware_bridge.decoders.catalogue import decode as decode_bytes

    print_json(decode_bytes(what, hex_bytes))


@devices.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seconds", type=click.FloatRange(min=0.1), help="For so long.  [default: 30; a file: all of it]")
@click.option("--eye", type=click.Choice([eye.value for eye in Eye]), help="Which eye a photograph shows.")
@json_option
def record(source: str, out: Path, seconds: float | None, eye: str | None, as_json: bool) -> None:
    """Record: raw bytes with their times (OUT ends in .aidcap), a recording (.hea, .edf, .dcm) or a photograph
    (.jpg, .png, .dcm).

    Example: aidpost devices record serial:/dev/ttyACM0?device=cyton bench.aidcap --seconds 60
    """
    from aidpost.firmware_bridge.formats.write import write_ecg, write_photo

    with contextlib.closing(open_source(source, clock=CLOCK)) as opened:
        if out.suffix.lower() in RAW_SUFFIXES:
            take = getattr(opened, "record", None)
            if take is None:
                raise opened_as(source, "sends no raw bytes", "Record serial: or ble:, or write .hea, .edf or .dcm.")
            count = take(out, seconds or 30.0)
            said = {"out": str(out), "bytes" if opened.spec.name == "serial" else "values": count}
        elif out.suffix.lower() in PHOTO_SUFFIXES or Kind.ECG not in opened.kinds or _is_photo(opened.spec):
            photo = opened.read_photo(Eye(eye) if eye else None)
            write_photo(photo, out)
            said = {"out": str(out), "bytes": len(photo.encoded), "eye": photo.eye.value if photo.eye else None}
        else:
            recording = opened.read_ecg(seconds)
            write_ecg(recording, out)
            missing = sum(stop - start for start, stop in recording.missing)
            said = {"out": str(out), "seconds": round(recording.duration_s, 3), "missing_samples": missing}
    if as_json:
        print_json(said)
    else:
        click.echo(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in said.items()))


def _is_photo(spec: SourceSpec) -> bool:
    """Whether a file is a photograph: `file:` gives both kinds, and what it holds decides."""
    from aidpost.firmware_bridge.formats.dicom import dicom_holds
    from aidpost.firmware_bridge.formats.photograph import media_type

    path = Path(spec.address)
    if spec.name != "file" or not path.is_file():
        return False
    with path.open("rb") as file:
        kind = media_type(file.read(256))
    return kind in ("image/jpeg", "image/png") or (kind == "application/dicom" and dicom_holds(path) == "fundus")


@devices.command()
@click.argument("capture", type=click.Path(exists=True, path_type=Path, dir_okay=False))
@click.option("--pace", type=click.Choice(["real", "fast"]), default="real", show_default=True)
@click.option("--pty", is_flag=True, help="On a pseudo-terminal, whose name is printed, instead of standard output.")
@click.option("--jsonl", is_flag=True, help="One object a chunk: its time, channel and bytes.")
def replay(capture: Path, pace: str, pty: bool, jsonl: bool) -> None:
    """The bytes of a capture once more, at their own pace or as fast as possible, for any other program.

    Example: aidpost devices replay bench.aidcap --pty
    """
    from aidpost.firmware_bridge.capture import open_capture, paced
    from aidpost.firmware_bridge.simulators.boards import PseudoTerminal

    opened = open_capture(capture)
    if opened is None:
        raise opened_as(str(capture), "is no capture: it has no times", "Record one with devices record.")
    chunks = paced(opened.chunks(), real=pace == "real")
    if pty:
        with PseudoTerminal() as terminal:
            click.echo(terminal.port)
            terminal.wait_for_reader()
            for chunk in chunks:
                if not terminal.write(chunk.data):
                    break
            terminal.drain()
        return
    for chunk in chunks:
        if jsonl:
            print_json({"time_us": chunk.time_us, "channel": chunk.channel, "hex": chunk.data.hex()})
        else:
            sys.stdout.buffer.write(chunk.data)
            sys.stdout.buffer.flush()


@devices.command()
@click.argument("source")
@click.option("--mv", type=click.FloatRange(min=0.01, max=100), default=1.0, show_default=True, help="Its height, mV.")
@click.option("--seconds", type=click.FloatRange(min=2), default=10.0, show_default=True)
@json_option
def calibrate(source: str, mv: float, seconds: float, as_json: bool) -> None:
    """What a count is worth, from a square wave of known height on the electrodes' leads.

    Example: aidpost devices calibrate serial:/dev/ttyACM0?device=olimex
    """
    import numpy as np

    from aidpost.firmware_bridge.calibration import uv_per_count

    spec = parse_source(source)
    if spec.name not in ("serial", "ble", "replay"):
        raise opened_as(source, "has no scale to be found", "Calibrate a serial:, ble: or replay: source.")
    kept = tuple((key, value) for key, value in spec.options if key not in ("gain", "uv_per_count"))
    # one microvolt a count: what comes back are the counts, also of a board whose scale is not known
    raw = SourceSpec(spec.name, spec.address, (*kept, ("uv_per_count", "1")))
    with contextlib.closing(open_source(raw, clock=CLOCK)) as opened:
        recording = opened.read_ecg(seconds)
    found = {}
    for number, lead in enumerate(recording.leads):
        counts = recording.millivolts(number)
        with contextlib.suppress(AidpostError):  # the wave need not be on every lead
            found[lead] = uv_per_count(counts[np.isfinite(counts)] / abs(recording.lsb_mv[number]), mv)
    if not found:
        counts = recording.millivolts(0)
        uv_per_count(counts[np.isfinite(counts)], mv)  # raises, with what to do
    value = next(iter(found.values()))
    use = SourceSpec(spec.name, spec.address, (*kept, ("uv_per_count", f"{value:.6g}")))
    if as_json:
        print_json({"uv_per_count": {lead: round(v, 6) for lead, v in found.items()}, "source": str(use)})
        return
    for lead, one in found.items():
        click.echo(f"{lead}: {one:.6g} µV a count")
    click.echo(f"use {use}")


@devices.command()
@click.argument("what", metavar="BOARD|SENSOR")
@click.option(
    "--record", type=click.Path(exists=True, path_type=Path), help="Play this recording; else a simulated one."
)
@click.option("--seconds", type=click.FloatRange(min=0.1), help="End after so long; by default with Ctrl-C.")
def simulate(what: str, record: Path | None, seconds: float | None) -> None:
    """A serial board that does not exist, on a pseudo-terminal that any program can open; or a Bluetooth sensor
    (`bluetooth`: all of them) on a private D-Bus, whose address is printed for other programs' environment.

    Example: aidpost devices simulate healthypi4
    """
    from aidpost.firmware_bridge.simulators.boards import ENCODERS
    from aidpost.firmware_bridge.simulators.sensors import SENSORS

    if what in ENCODERS:
        running = _simulated_board(what, record)
    elif what in SENSORS or what == "bluetooth":
        running = _simulated_sensors(tuple(SENSORS) if what == "bluetooth" else (what,))
    else:
        known = ", ".join([*ENCODERS, *SENSORS, "bluetooth"])
        raise click.BadParameter(f"{what!r} cannot be simulated; known: {known}", param_hint="BOARD|SENSOR")
    with running as address:
        click.echo(address)
        sys.stdout.flush()
        try:
            threading.Event().wait(seconds)
        except KeyboardInterrupt:
            click.echo("ended", err=True)


@contextlib.contextmanager
def _simulated_board(board: str, record: Path | None) -> Iterator[str]:
    from aidpost.firmware_bridge.boards import BOARDS
    from aidpost.firmware_bridge.simulators.boards import BoardSimulator

    row = BOARDS[board]
    source = str(record) if record else f"sim:ecg?fs={row.fs_hz:g}&seconds=60"
    recording = open_source(source, clock=CLOCK).read_ecg()
    scale = (row.uv_per_count or 1.0) / 1000
    counts = [int(value) for value in (recording.millivolts(0) / scale + row.baseline).round().tolist()]
    with BoardSimulator(board, itertools.cycle(counts)) as simulated:
        yield simulated.port


@contextlib.contextmanager
def _simulated_sensors(names: tuple[str, ...]) -> Iterator[str]:
    from aidpost.firmware_bridge.simulators.bluez import FakeBluez
    from aidpost.firmware_bridge.simulators.bus import private_bus
    from aidpost.firmware_bridge.simulators.sensors import SENSORS

    sensors = tuple(SENSORS[name]() for name in names)
    with (
        tempfile.TemporaryDirectory(prefix="aidpost-bus-") as folder,
        private_bus(Path(folder)) as address,
        FakeBluez(address, sensors),
    ):
        yield f"DBUS_SYSTEM_BUS_ADDRESS={address}"
