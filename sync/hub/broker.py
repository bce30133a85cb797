"""Mosquitto's configuration for this hub: TLS with client certificates of the hub's authority, and who may do what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aidpost.sync._durable import make_folder, replace_file
from aidpost.sync.hub import enrolment
from aidpost.sync.hub.authority import Authority, hub_user
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms

_CONFIGURATION = """\
# Written by `aidpost hub broker`; run it again rather than change this.
per_listener_settings false
listener {port}{bind}
cafile {folder}/authority.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/revoked.pem
tls_version tlsv1.2
require_certificate true
# who one is, is what the certificate says: the user by whom the rules below go, and the name of the session,
# so that no device can take another's over
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl
persistence true
persistence_location {folder}/
# what is larger than the wire's bound never is a message of ours
message_size_limit 1100000
max_inflight_messages 100
max_queued_messages 10000
"""

_DEVICE_RULES = """\
# A device writes its own records and status, and reads what is meant for it. %u is the name in its certificate.
pattern write aidpost/1/%u/up/#
pattern write aidpost/1/%u/status
pattern read aidpost/1/%u/receipt
pattern read aidpost/1/%u/down/#
"""


def write(config: HubConfig, folder: Path, workers: Sequence[str] = (), *, bind: str = "") -> Path:
    """Write `mosquitto.conf`, its rules, certificates and list of revoked ones; returns the configuration's path.

    Mosquitto reads rules and revocations again on SIGHUP. The hub's own pair is `hub.pem` and `hub.key`
    (`hub-WORKER.*` for workers), for `hub.broker_certificate` and `hub.broker_key`.
    """
    make_folder(folder)
    authority, now = Authority(config.state, config.name), now_ms()
    hosts = list(dict.fromkeys((config.public_host, "127.0.0.1")))  # by which devices reach it, and the hub beside it
    authority.write_pair(folder, "broker", config.public_host, now, hosts)
    rules = [_DEVICE_RULES]
    for worker in ("", *workers):
        user = hub_user(config.name, worker)
        authority.write_pair(folder, f"hub-{worker}" if worker else "hub", user, now)
        # what goes up is the devices' to write: a hub that could would be able to lock itself in a loop
        rules += [f"\nuser {user}", "topic read aidpost/1/+/up/#", "topic read aidpost/1/+/status"]
        rules += ["topic write aidpost/1/+/receipt", "topic write aidpost/1/+/down/#"]
    replace_file(folder / "acl", ("\n".join(rules) + "\n").encode(), mode=0o600)
    replace_file(folder / "authority.pem", authority.pem, mode=0o644)
    write_revocations(config, folder)
    bound = f" {bind}" if bind else ""
    text = _CONFIGURATION.format(port=config.public_broker_port, bind=bound, folder=folder.absolute())
    replace_file(folder / "mosquitto.conf", text.encode(), mode=0o644)
    return folder / "mosquitto.conf"


def write_revocations(config: HubConfig, folder: Path) -> None:
    """The list of revoked certificates, as the hub's database has it now."""
    database = Database(config.url)
    try:
        with database.read() as connection:
            serials = enrolment.revoked_serials(connection)
    finally:
        database.close()
    revoked = Authority(config.state, config.name).revocations(serials, now_ms())
    replace_file(folder / "revoked.pem", revoked, mode=0o644)
