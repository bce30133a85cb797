"""This device put together: its key, its store, its inference worker and its sender, from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aidpost.board import rekey
from aidpost.board.configuration import Configuration
from aidpost.board.exam import Body, ExamOutcome
from aidpost.errors import ConfigurationError, KeyUnavailableError
from aidpost.inference import shadow
from aidpost.inference.worker import WorkerSettings
from aidpost.records import ExamReport, TriageLevel
from aidpost.sync import enrolment, keys
from aidpost.sync._integrity import NAME as STORE_FILE
from aidpost.sync._space import Budget
from aidpost.sync.bodies import Shadow
from aidpost.sync.clock import Clock, SystemClock
from aidpost.sync.envelope import RecordClass, RecordKey
from aidpost.sync.link import Link
from aidpost.sync.store import Blob, Item, Store


def device_key(
    configuration: Configuration,
    state_dir: Path,
    passphrase: Callable[[], str],
    credentials: Path | None = None,
) -> keys.DeviceKey:
    """The key that opens this device's store, from where `store.key` says.

    Parameters
    ----------
    passphrase
        Asks the worker; called only where the configuration wants a passphrase.
    credentials
        The folder into which systemd decrypted the service's credentials.

    Raises
    ------
    KeyUnavailableError
        It cannot be had from there.
    """
    source = configuration.store.key
    if source == "passphrase":
        return rekey.settled_passphrase(state_dir, passphrase())
    if source == "systemd-credential":
        if credentials is None:
            raise KeyUnavailableError(
                operation="getting the device key",
                target="systemd credential",
                cause="this process was not started by systemd with a credential",
                remedy="Start the aidpost service, or set store.key to another source.",
            )
        return rekey.settled(state_dir, keys.from_credential(credentials))
    # a store without its key file has another key, or lost it: a new file would open nothing of it
    new = not (state_dir / STORE_FILE).exists()
    return rekey.settled(state_dir, keys.from_file(state_dir / rekey.KEY_FILE, create=new))


def open_store(configuration: Configuration, state_dir: Path, key: keys.DeviceKey, clock: Clock | None = None) -> Store:
    """The device's store; made at the first use. Raises as `Store.open`."""
    name = configuration.device.name
    return Store.open(state_dir, key, clock=clock or SystemClock(), name=name, budget=budget(configuration))


def budget(configuration: Configuration) -> Budget:
    """What of the disk the store may use."""
    section = configuration.store
    return Budget(section.budget_mb << 20, section.reserve_mb << 20, section.keep_receipted_days)


def worker_settings(configuration: Configuration, state_dir: Path | None = None) -> WorkerSettings:
    """What the inference worker makes its models of; the heads learned here are those of `state_dir`."""
    from aidpost.board.analysis import models_for  # what runs models: a start has no need of it

    models = models_for(configuration.inference, state_dir)
    return WorkerSettings(
        roots=models.roots,
        profile=models.profile,
        accepted=configuration.inference.accepted_models,
        heads=models.heads,
        limits=configuration.limits,
    )


def accept(store: Store, outcome: ExamOutcome) -> RecordKey:
    """Put an exam's report and its bodies into the store; on the disk when this returns.

    An urgent report travels as an alert, before all else.

    Raises
    ------
    StorageFullError
        There is no room; nothing was accepted.
    """
    report = outcome.report
    cls = RecordClass.ALERT if report.triage.level >= TriageLevel.URGENT else RecordClass.REPORT
    # the same bytes twice (a file given for both eyes) are one blob
    bodies = {body.ref.sha256: body for body in outcome.bodies}
    blobs = [Blob(body.ref, body.data, body.origin, _preview_of(body)) for body in bodies.values()]
    items = [Item(cls, report, report.patient.id, report.exam.id, blobs)]
    # readings that may be another person's are kept, under nobody's name, until a person assigns them
    items += [Item(RecordClass.VITALS, reading, None) for reading in outcome.unassigned]
    return store.append_many(items)[0]


def _preview_of(body: Body) -> bytes:
    from aidpost.board._preview import preview  # OpenCV, which a start has no need of

    return preview(body.data) if body.ref.media_type.startswith("image/") else b""


def hidden_tasks(configuration: Configuration, store: Store) -> tuple[str, ...]:
    """The tasks whose model's answer people here do not see: what the hub said last of this clinic, or, while it has
    said nothing, what is configured."""
    clinic = configuration.clinic
    said = [one for one in store.inbox.records(Shadow, None) if one.clinic in (clinic.name, clinic.id)]
    if said:
        return said[-1].tasks
    return shadow.TASKS if configuration.inference.shadow else ()


def shown(configuration: Configuration, store: Store, report: ExamReport) -> ExamReport:
    """The report as people here see it; the hub gets it whole."""
    hidden = hidden_tasks(configuration, store)
    return shadow.concealed(report, hidden, configuration.limits) if hidden else report


def link(configuration: Configuration, store: Store | None = None) -> Link:
    """The broker and the hub behind it: those that a device which enrolled itself was told, or else from `[sync]`.

    Parameters
    ----------
    store
        The device's; without it only `[sync]` is read.

    Raises
    ------
    ConfigurationError
        A file that it names cannot be read, or the hub's key is missing or not one.
    """
    section = configuration.sync
    enrolled = enrolment.load(store.folder / enrolment.FOLDER, store.key) if store is not None else None
    if enrolled is not None and not section.hub_key_file:
        return enrolled.link(
            keepalive_s=section.keepalive_s,
            window_records=section.window_records,
            window_bytes=section.window_bytes,
            backlog_bytes_s=section.backlog_kb_s * 1000,
        )
    if not section.hub_key_file:
        raise _link_error(
            "sync.hub_key_file", "it is not set", "Enrol the device: `aidpost hub enroll` prints the key."
        )
    try:
        hub_key = keys.public_key(bytes.fromhex(_content("sync.hub_key_file", section.hub_key_file)))
    except ValueError:
        raise _link_error(section.hub_key_file, "it does not hold 64 hexadecimal digits") from None
    return Link(
        host=section.host,
        port=section.port,
        hub_name=section.hub_name,
        hub_key=hub_key,
        username=section.username,
        password=_content("sync.password_file", section.password_file) if section.password_file else "",
        tls=(section.ca_file, section.certificate_file, section.key_file) if section.tls else None,
        keepalive_s=section.keepalive_s,
        window_records=section.window_records,
        window_bytes=section.window_bytes,
        backlog_bytes_s=section.backlog_kb_s * 1000,
    )


def _content(key: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _link_error(f"{key} = {path}", str(error)) from None


def _link_error(target: str, cause: str, remedy: str = "Correct it in the configuration.") -> ConfigurationError:
    return ConfigurationError(operation="setting up the sender", target=target, cause=cause, remedy=remedy)
