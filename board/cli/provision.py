"""`aidpost board provision` and `deprovision`: from a board to a device of a clinic, and back."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import click

from aidpost.board import configuration
from aidpost.board import provision as steps
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, print_json, settings_of
from aidpost.board.cli._device import opened_store
from aidpost.board.deprovision import deprovision as wipe
from aidpost.board.detect import detect
from aidpost.errors import UsageError
from aidpost.sync import enrolment
from aidpost.sync.clock import SystemClock

root_option = click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default="/", hidden=True
)


@click.command()
@root_option
@click.option("--from-card", is_flag=True, help="As the boot partition says, and leave the signed receipt there.")
@click.option("--clinic", default="", help="The clinic's id.")
@click.option("--clinic-name", default="", help="Its name, for reports.")
@click.option("--name", default="", help="The device's name.")
@click.option("--hub", default="", help="HOST or HOST:PORT of the hub's broker.")
@click.option("--hub-name", default="", help="The hub's name, as `aidpost hub enroll` prints it.")
@click.option("--hub-key", default="", help="The hub's public key, as `aidpost hub enroll` prints it.")
@click.option("--code", default="", help="The line that `aidpost hub enroll NAME` printed; it works once.")
@click.option("--ecg", default="", help="SOURCE of the ECG; a Bluetooth one is paired with.")
@click.option("--fundus-right", default="", help="SOURCE of the right eye's photographs.")
@click.option("--fundus-left", default="", help="SOURCE of the left eye's photographs.")
@click.option("--vitals", multiple=True, help="SOURCE of a vital signs sensor; may be given several times.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write the sheet with the QR code here (HTML).")
@json_option
@settings_of
def provision(
    settings: Settings,
    root: Path,
    from_card: bool,
    clinic: str,
    clinic_name: str,
    name: str,
    hub: str,
    hub_name: str,
    hub_key: str,
    code: str,
    ecg: str,
    fundus_right: str,
    fundus_left: str,
    vitals: tuple[str, ...],
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Make this board a device of a clinic: key, configuration, sensors, hub, time, sheet. Run it again whenever
    something was missing: what is done is kept.

    Example: aidpost --config /etc/aidpost/aidpost.toml board provision --clinic c7 --hub hub.example:8883
    """
    if settings.config_path is None:
        cause = "a device's configuration is a file: none was named"
        raise UsageError(
            operation="provisioning", target="--config", cause=cause, remedy="aidpost --config FILE board …"
        )
    boot, setup = steps.card_settings(root) if from_card else (None, {})
    wanted = (
        steps.wanted_of(setup)
        if from_card
        else steps.Wanted(
            clinic=clinic, clinic_name=clinic_name, name=name, hub=hub, hub_name=hub_name, hub_key=hub_key
        )
    )
    done = [steps.configure(settings.config_path, wanted, settings.state_dir)]
    sensors = [("ecg", ecg), ("fundus_right", fundus_right), ("fundus_left", fundus_left)]
    for key, source in [*sensors, *(("vitals", one) for one in vitals)]:
        if source:
            done.append(steps.sensor_step(settings.config_path, key, source))
    config = configuration.load(settings.config_path)
    had = (settings.state_dir / "store.sqlite3").exists()
    with opened_store(settings, config) as store:
        identity = store.identity
        done.insert(0, steps.Done(step="key", state="kept" if had else "done", what=identity.name))
        clock = SystemClock(root)
        enrolled = steps.enrol_step(store, settings.state_dir, code or setup.get("token", ""), clock)
        done += [enrolled or steps.hub_step(config, identity), steps.clock_step(clock)]
        if sheet:
            told = enrolment.told(settings.state_dir / enrolment.FOLDER)
            done.append(steps.sheet(sheet, identity, config, detect(root).model, told.url if told else ""))
        if boot is not None:
            done += steps.leave_receipt(boot, root, setup, config, identity)
    if as_json:
        print_json({"schema": "aidpost.provision/1", "steps": done})
        return
    for one in done:
        click.echo(f"{one.state:8} {one.step:14} {one.what}")


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--lose", type=click.IntRange(0), default=0, help="So many records that the hub has not may be lost.")
@json_option
@settings_of
def deprovision(settings: Settings, yes: bool, lose: int, as_json: bool) -> None:
    """Wipe this device: destroy its keys, then its records. Refused while the hub lacks records.

    Example: aidpost board deprovision
    """
    if not yes:
        click.confirm(f"Destroy the keys and all records in {settings.state_dir}?", abort=True, err=True)
    waiting = _waiting(settings.state_dir / "store.sqlite3")
    removed = wipe(settings.state_dir, waiting, lose, Path("/etc/credstore.encrypted"))
    if as_json:
        print_json({"schema": "aidpost.deprovision/1", "removed": removed})
    else:
        click.echo(f"wiped: {len(removed)} files and folders; this device is nobody's now")
    sys.exit(0)


def _waiting(path: Path) -> int:
    """Records without a receipt, refused ones too: no key is needed to count them."""
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM record WHERE state != 1").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0  # damaged or never begun: there is nothing that could still be sent
    finally:
        connection.close()
