"""What a hub can be told: one validated value, from the `[hub]` table of the configuration or made in code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from aidpost.errors import ConfigurationError
from aidpost.sync.topics import is_device_name

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class OidcGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one value of the login provider's claim entitles to."""

    role: Literal["viewer", "clinician", "administrator"]
    clinics: tuple[str, ...] = ()
    """Whose patients they see; empty: all."""
    reads: tuple[Literal["eyes", "heart"], ...] = ()
    """What they sign; empty: everything."""


class HubConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One hub.

    Raises
    ------
    ConfigurationError
        A value is out of range, or two values contradict each other.
    """

    state_dir: str
    """Folder of everything that the hub keeps: its key, and by default its database and blobs."""
    name: str = "hub"
    """The name under which the hub signs; devices know it together with its public key."""
    database_url: str = ""
    """SQLAlchemy URL. Empty: SQLite in the state folder. `postgresql+psycopg://…` for a country."""
    blob_dir: str = ""
    """Folder of photographs and waveforms, by SHA-256. Empty: `blobs` in the state folder."""
    broker_host: str = "127.0.0.1"
    """MQTT broker. Empty: no broker, the hub takes sticks only."""
    broker_port: Port = 1883
    broker_username: str = ""
    broker_password: str = ""
    broker_ca: str = ""
    """PEM file with the broker's authority; set, the connection is TLS."""
    broker_certificate: str = ""
    """PEM file with the hub's own client certificate, for mutual TLS."""
    broker_key: str = ""
    """PEM file with the key of `broker_certificate`."""
    public_host: str = ""
    """The name or address by which devices reach this hub. Set, `aidpost hub serve` enrols devices over HTTPS."""
    public_broker_port: Port = 8883
    """The broker's port for devices: TLS with certificates of this hub's own authority."""
    enrolment_bind: str = "0.0.0.0"
    """Address on which devices are enrolled and their certificates renewed."""
    enrolment_port: Port = 8443
    """Its port."""
    updates_dir: str = ""
    """Folder of signed updates (`aidpost board update publish`), served to devices on the enrolment port."""
    update_halt_failures: _Positive = 2
    """So many devices that took a version back halt it for all others,"""
    update_halt_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """if they are at least this share of the devices on which it came to an end."""
    shared_group: str = ""
    """Several hubs on one broker share the work under this group name (`$share`, where the broker has it)."""
    share_devices: bool = False
    """Several hubs on one database and one broker that cannot share a subscription (`$share`): each takes its share of
    the devices, and the share of one that falls silent."""
    worker: str = ""
    """Tells several hubs of one name apart at the broker; needed with `shared_group` and `share_devices`."""
    listen_host: str = "127.0.0.1"
    """Address of the pages. Beyond this machine, put a TLS certificate or a reverse proxy in front."""
    listen_port: Port = 8080
    """Port of the pages; 0 takes a free one."""
    tls_certificate: str = ""
    """PEM file: the pages are served by HTTPS."""
    tls_key: str = ""
    """PEM file with the key of `tls_certificate`."""
    behind_https: bool = False
    """A reverse proxy in front speaks HTTPS: cookies are marked for HTTPS only."""
    accept_simulated: bool = False
    """Take simulated exams (demo, practice, training). A hub that serves patients refuses them."""
    max_blob_bytes: _Positive = 64 * 1024 * 1024
    """The largest photograph or waveform that is taken."""
    reserve_mb: _Positive = 64
    """With less than this free, photographs and waveforms stay on the devices, and what is left is for records."""
    batch_messages: _Positive = 200
    """The most messages that share one commit."""
    session_idle_minutes: _Positive = 30
    """A reader who does nothing this long must log in again."""
    session_hours: _Positive = 12
    """The longest that one login lasts."""
    second_factor: bool = False
    """Show patients only to users who have set up a second factor."""
    passwords: Literal["all", "administrators"] = "all"
    """Whose passwords open the hub; `administrators` where all others come by OpenID Connect."""
    oidc_issuer: str = ""
    """OpenID Connect provider by which people may log in, as its discovery document names it: `https://id.example`.
    Empty: none. `public_url` must be set; the provider is told to send people back to `…/login/oidc/callback`."""
    oidc_client_id: str = ""
    """This hub's name at the provider."""
    oidc_client_secret: str = ""
    """Its secret there; empty: a public client, by PKCE alone."""
    oidc_ca: str = ""
    """PEM file with the provider's authority; empty: the system's."""
    oidc_scope: str = "openid profile"
    """What the provider is asked for."""
    oidc_name_claim: str = "preferred_username"
    """The claim that names a user whom the hub does not know yet."""
    oidc_grant_claim: str = "groups"
    """The claim whose values `oidc_grants` names; a dot leads inside: `realm_access.roles`."""
    oidc_grants: dict[str, OidcGrant] = {}
    """What each value entitles to. Set, role and limits come from the provider at each login, and who has none of them
    is refused; empty, they are those that `aidpost hub user --oidc-subject` gave."""
    oidc_create: bool = False
    """Make an account for who has a grant and is not known yet; else an administrator does."""
    oidc_second_factor: tuple[str, ...] = ("mfa",)
    """With `second_factor`: the values of `amr` or `acr` by which the provider says that it asked for one."""
    metrics_token: str = ""
    """`/metrics` is given to who brings this as a bearer token. Empty: to administrators who are logged in only."""
    lease_minutes: _Positive = 15
    """How long an opened case is kept for one reader."""
    readers: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1
    """How many clinicians read each part of an exam on their own; where two disagree, a third decides."""
    second_reader_against_device: bool = False
    """A reader who contradicts the device's call is followed by a second, who decides."""
    blinded_first_read: bool = False
    """Hide what the device found until the reader has graded."""
    blinded_sample: bool = True
    """Read the random sample that measures the device without seeing what the device found."""
    fhir_url: str = ""
    """Base of a FHIR R4 server that gets each exam: `https://fhir.example/r4`. Empty: none."""
    fhir_token: str = ""
    """Bearer token for it."""
    fhir_simulated: bool = False
    """Give it what is not live, too, marked as test data."""
    dicom_url: str = ""
    """A PACS that gets each recording: `dicom://TITLE@pacs.example:104`, `dicoms://…` by TLS, or the base of its
    DICOMweb service, `https://pacs.example/dicom-web`. Empty: none."""
    dicom_title: Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9_ -]{1,16}$")] = "AIDPOST"
    """The hub's own application entity title."""
    dicom_ca: str = ""
    """PEM file with the authority of a `dicoms://` PACS; empty: the system's."""
    dicom_certificate: str = ""
    """PEM file with the hub's certificate for it."""
    dicom_key: str = ""
    """PEM file with the key of that certificate."""
    dicom_token: str = ""
    """Bearer token for DICOMweb."""
    dicom_simulated: bool = False
    """Give it what is not live, too."""
    shadow_bound: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Shadow mode: readers of a clinic do not see what a model found before grading, until the lower end of the 95 %
    interval of its sensitivity and specificity there has reached this. 0: off."""
    public_url: str = ""
    """Where readers reach the pages, for links in alerts: `https://hub.example`."""
    alert_contacts: tuple[tuple[str, ...], ...] = ()
    """Who hears of an urgent finding: addresses of mail (`mailto:a@example`) and of webhooks (`https://…`), those who
    are told at once first, then those who are told if nobody has answered; the last are told again and again."""
    alert_minutes: _Positive = 15
    """How long one group of contacts has to answer before the next is told."""
    smtp_host: str = ""
    """Mail server for alerts."""
    smtp_port: Port = 587
    """Its port."""
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection to the mail server is protected."""
    smtp_username: str = ""
    """User at the mail server; empty: none is named."""
    smtp_password: str = ""
    """Their password."""
    smtp_sender: str = ""
    """The address that alerts come from."""
    webhook_secret: str = ""
    """Webhooks carry `X-Aidpost-Signature: sha256=HMAC` of their body under this secret."""

    def __post_init__(self) -> None:
        _require(bool(self.state_dir), "hub.state_dir", "it is empty", "Name a folder for the hub's data.")
        _require(is_device_name(self.name), "hub.name", f"{self.name!r} has other characters than A-Z a-z 0-9 _ . -")
        _require(
            not self.database_url or re.match(r"(sqlite|postgresql)(\+\w+)?://", self.database_url) is not None,
            "hub.database_url",
            "it is neither sqlite:// nor postgresql://",
        )
        _require(
            bool(self.broker_certificate) == bool(self.broker_key),
            "hub.broker_certificate",
            "a certificate needs its key, and a key its certificate",
            "Set both hub.broker_certificate and hub.broker_key, or neither.",
        )
        _require(
            bool(self.tls_certificate) == bool(self.tls_key),
            "hub.tls_certificate",
            "a certificate needs its key, and a key its certificate",
            "Set both hub.tls_certificate and hub.tls_key, or neither.",
        )
        _require(
            re.fullmatch(r"[A-Za-z0-9_-]*", self.shared_group) is not None,
            "hub.shared_group",
            "it has other characters than letters, digits, _ and -",
        )
        _require(not (self.share_devices and self.shared_group), "hub.share_devices", "the broker shares already")
        _require(not self.share_devices or bool(self.worker), "hub.worker", "workers that share need a name each")
        _require(
            re.match(r"(https?://\S+)?$", self.fhir_url) is not None,
            "hub.fhir_url",
            "it is neither http:// nor https://",
        )
        _require(
            re.match(r"(dicoms?://[^@/\s]{1,16}@[^/\s]+|https?://\S+)?$", self.dicom_url) is not None,
            "hub.dicom_url",
            "it is neither dicom://TITLE@host:port nor http(s)://…",
        )
        _require_oidc(self)
        contacts = [contact for level in self.alert_contacts for contact in level]
        _require(
            all(re.match(r"mailto:[^@\s]+@[^@\s]+$|https?://", contact) for contact in contacts),
            "hub.alert_contacts",
            "a contact is neither mailto:… nor http(s)://…",
        )
        mailed = any(contact.startswith("mailto:") for contact in contacts)
        _require(
            not mailed or bool(self.smtp_host and self.smtp_sender),
            "hub.alert_contacts",
            "mail needs a server and a sender",
            "Set hub.smtp_host and hub.smtp_sender.",
        )

    @property
    def state(self) -> Path:
        """`state_dir` as a path."""
        return Path(self.state_dir)

    @property
    def url(self) -> str:
        """`database_url`, or the SQLite file in the state folder."""
        return self.database_url or f"sqlite:///{self.state / 'hub.sqlite3'}"

    @property
    def blobs(self) -> Path:
        """`blob_dir`, or `blobs` in the state folder."""
        return Path(self.blob_dir) if self.blob_dir else self.state / "blobs"

    @property
    def secure_cookies(self) -> bool:
        """Whether readers reach the pages by HTTPS."""
        return self.behind_https or bool(self.tls_certificate)


def _require_oidc(config: HubConfig) -> None:
    if not config.oidc_issuer:
        _require(config.passwords == "all", "hub.passwords", "nobody else could log in", "Set hub.oidc_issuer, too.")
        return
    loopback = re.match(r"http://(localhost|127\.[0-9.]+|\[::1\])(:\d+)?(/\S*)?$", config.oidc_issuer)
    _require(
        loopback is not None or re.match(r"https://[^\s?#]+$", config.oidc_issuer) is not None,
        "hub.oidc_issuer",
        "it is not https://…",
    )
    _require(
        bool(config.public_url and config.oidc_client_id),
        "hub.oidc_issuer",
        "the provider must know this hub and where it sends people back to",
        "Set hub.oidc_client_id and hub.public_url.",
    )
    _require("openid" in config.oidc_scope.split(), "hub.oidc_scope", "it lacks openid")
    _require(
        not config.oidc_create or bool(config.oidc_grants),
        "hub.oidc_create",
        "without grants, anybody at the provider would get an account",
        "Set hub.oidc_grants, or make the accounts with `aidpost hub user --oidc-subject`.",
    )


def _require(condition: bool, key: str, cause: str, remedy: str = "Correct it in the configuration.") -> None:
    if not condition:
        raise ConfigurationError(operation="reading the hub's configuration", target=key, cause=cause, remedy=remedy)
