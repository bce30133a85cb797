"""The device's configuration: one TOML file, every key typed, bounded and documented in docs/configuration.md.

An unknown key is an error and not a shrug: a misspelt `retention` must not silently keep the default.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from aidpost.errors import ConfigurationError

if TYPE_CHECKING:
    from aidpost.sync.hub.config import HubConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
S = TypeVar("S", bound=msgspec.Struct)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class ClinicSection(Section, frozen=True, kw_only=True):
    """Where the device is used; printed on the report."""

    id: str = "unset"
    name: str = ""
    telephone: str = ""
    emergency_telephone: str = ""
    help_telephone: str = ""


class DeviceSection(Section, frozen=True, kw_only=True):
    """The handheld itself."""

    name: str = "aidpost"
    operator: str = "unset"
    utc_offset_min: Annotated[int, Meta(ge=-960, le=960)] | None = None


class StoreSection(Section, frozen=True, kw_only=True):
    """What is kept on the disk. `key` says where the device key comes from, in order of strength."""

    key: Literal["systemd-credential", "passphrase", "file"] = "file"
    budget_mb: Positive = 8192
    reserve_mb: Positive = 64
    keep_receipted_days: Positive = 30


class SyncSection(Section, frozen=True, kw_only=True):
    """The broker, and how much may be on its way at once."""

    enabled: bool = True
    host: str = "localhost"
    port: Port = 1883
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""
    keepalive_s: Annotated[int, Meta(ge=1, le=65_535)] = 30
    hub_name: str = "hub"
    hub_key_file: str = ""
    window_records: Annotated[int, Meta(ge=1, le=10_000)] = 64
    window_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024
    backlog_kb_s: Annotated[int, Meta(ge=0)] = 512


class InferenceSection(Section, frozen=True, kw_only=True):
    """How the models run. A `clinical` site refuses restricted models that it has not accepted by name."""

    profile: Literal["research", "clinical"] = "research"
    accepted_models: tuple[str, ...] = ()
    deadline_s: Seconds = 30.0
    models_dir: str = ""
    shadow: bool = False


class FederatedSection(Section, frozen=True, kw_only=True):
    """Whether this device learns with others, and what of its patients' privacy that may cost in all."""

    enabled: bool = False
    epsilon: Annotated[float, Meta(gt=0, le=20)] = 8.0
    delta: Annotated[float, Meta(gt=0, le=0.001)] = 1e-5
    least_patients: Annotated[int, Meta(ge=2)] = 10
    idle_minutes: Annotated[float, Meta(ge=0)] = 10.0


class ExamSection(Section, frozen=True, kw_only=True):
    """How an exam goes."""

    ecg_seconds: Annotated[float, Meta(ge=9, le=300)] = 30.0
    sensor_deadline_s: Seconds = 60.0


class UpdateSection(Section, frozen=True, kw_only=True):
    """Where releases lie, where new ones come from, and whose signature counts."""

    folder: str = "/opt/aidpost"
    source: str = ""
    root_file: str = "/etc/aidpost/root.json"


class SensorsSection(Section, frozen=True, kw_only=True):
    """Which sensors the device's screen records from, each a SOURCE; empty: there is none."""

    ecg: str = ""
    fundus_right: str = ""
    fundus_left: str = ""
    vitals: tuple[str, ...] = ()
    code: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """Every SOURCE once, in the order in which an exam uses them."""
        named = (*self.vitals, self.ecg, self.fundus_right, self.fundus_left, self.code)
        return tuple(dict.fromkeys(source for source in named if source))


class ConsoleSection(Section, frozen=True, kw_only=True):
    """The device's touch screen."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8787
    lock_minutes: Positive = 5
    language: str = "en"
    languages_dir: str = ""
    paper: Literal["A5", "A4"] = "A5"
    printer: str = ""
    receipt_printer: str = ""
    stick_dir: str = "/media"
    roll_mm: Literal[58, 80] = 58
    large_print: bool = False
    speak: bool = False
    glucose_unit: Literal["mmol/L", "mg/dL"] = "mmol/L"


class Configuration(Section, frozen=True, kw_only=True):
    """The whole file. Every section and key may be left out."""

    clinic: ClinicSection = ClinicSection()
    device: DeviceSection = DeviceSection()
    store: StoreSection = StoreSection()
    sync: SyncSection = SyncSection()
    inference: InferenceSection = InferenceSection()
    federated: FederatedSection = FederatedSection()
    exam: ExamSection = ExamSection()
    update: UpdateSection = UpdateSection()
    sensors: SensorsSection = SensorsSection()
    console: ConsoleSection = ConsoleSection()
    limits: dict[str, dict[str, float]] = {}
    """A site's own clinical limits: rule file -> limit -> value."""
    hub: dict[str, Any] = {}
    """The hub's own table, for `hub_config`; a device has none."""


def keys(section: type[msgspec.Struct] = Configuration, prefix: str = "") -> list[str]:
    """Every key, dotted: `sync.host`. The documentation test holds docs/configuration.md against it."""
    found = []
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            found += keys(field.type, f"{prefix}{field.name}.")
        elif field.name == "hub":
            from aidpost.sync.hub.config import HubConfig

            found += keys(HubConfig, "hub.")
        else:
            found.append(prefix + field.name)
    return found


def _remedy(cause: str) -> str:
    """Name the nearest key that exists, where an unknown one was given."""
    if "unknown field" not in cause:
        return "Correct the value; docs/configuration.md lists every key with its type and limits."
    known = {part for key in keys() for part in key.split(".")}
    near = difflib.get_close_matches(cause.split("`")[1], known, n=1)
    return f"Did you mean `{near[0]}`?" if near else "Remove it; docs/configuration.md lists every key."


def convert(document: Any, kind: type[S], name: str) -> S:
    """The typed value of a document; raises ConfigurationError as `parse`."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        cause = str(error)
    raise ConfigurationError(operation="reading the configuration", target=name, cause=cause, remedy=_remedy(cause))


def parse(text: str, name: str = "configuration") -> Configuration:
    """The configuration in a TOML text.

    Raises
    ------
    ConfigurationError
        It is not TOML, or has an unknown key, a wrong type or a value out of range; the cause names the key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            operation="reading the configuration",
            target=name,
            cause=f"not valid TOML: {error}",
            remedy="Correct that line.",
        ) from None
    return convert(document, Configuration, name)


def hub_config(configuration: Configuration, state_dir: Path) -> HubConfig:
    """The `[hub]` table; its data lie in `hub` below the state folder unless it says otherwise.

    Raises
    ------
    ConfigurationError
        As `parse` does.
    """
    from aidpost.sync.hub.config import HubConfig

    return convert({"state_dir": str(state_dir / "hub"), **configuration.hub}, HubConfig, "[hub]")


def load(path: Path | None) -> Configuration:
    """The configuration in that file; the defaults where no file is given.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or `parse` refuses it.
    """
    if path is None:
        return Configuration()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            operation="reading the configuration",
            target=str(path),
            cause=str(error),
            remedy="Give an existing UTF-8 TOML file with --config, or leave it out for the defaults.",
        ) from None
    return parse(text, str(path))
