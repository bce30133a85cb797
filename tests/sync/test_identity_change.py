"""A device signs with another key: the hub takes the new one, and for a while what the old one signed, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from device_records import KEY, make_item
from enrolment_hub import enrolment_hub
from sqlalchemy import select, update

from aidpost.board.cli import cli
from aidpost.errors import EnrolmentError, EnvelopeError, StoreLockedError, UsageError
from aidpost.sync import enrolment, publisher, rotation
from aidpost.sync.enrolment import Enrolled, IdentityRequest, changed_part
from aidpost.sync.envelope import Envelope, Records, pack_message
from aidpost.sync.hub import operations, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.enrolment import Registrar
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.stick import import_stick
from aidpost.sync.keys import DeviceKey, Identity, public_bytes, public_key
from aidpost.sync.outbox import Outbox
from aidpost.sync.stick import export_stick, import_receipts
from aidpost.sync.store import Store


class Site:
    """A hub that listens, and an enrolled device."""

    def __init__(self, config: HubConfig, database: Database, store: Store) -> None:
        self.config, self.database, self.store = config, database, store
        self.ingest = Ingest(database, BlobFiles(config.blobs), config)
        code = operations.enrolment_code(config, store.identity.name)
        self.enrolled: Enrolled = enrolment.enroll(
            code, store.identity, store.key, store.folder / enrolment.FOLDER, synced=False
        )
        self.sequence = 0

    def change(self) -> Identity:
        """Gives the key before."""
        old = self.store.identity
        self.enrolled.change_identity(self.store, synced=False)
        return old

    def is_taken(self, signer: Identity) -> bool:
        """Whether the hub commits a record that this key signed."""
        self.sequence += 1
        envelope = Envelope(os.urandom(8), "note", 1, "Unknown", None, None, b"x")
        message = pack_message(Records((envelope,)), sender=signer.name, key=signer.private)
        replies = self.ingest.ingest([Incoming(signer.name, message, now_ms())])
        return bool(replies and replies[0].content.held)

    def audited(self, action: str) -> list[str]:
        with self.database.read() as connection:
            rows = connection.execute(select(schema.audit.c.detail).where(schema.audit.c.action == action))
            return list(rows.scalars())


@pytest.fixture
def site(tmp_path: Path, open_store: Callable[..., Store]) -> Iterator[Site]:
    with enrolment_hub(tmp_path / "hub", accept_simulated=True) as (config, database):
        yield Site(config, database, open_store())


def test_the_new_key_counts_and_what_is_on_its_way_is_still_taken(site: Site) -> None:
    old = site.change()
    new = site.store.identity
    assert public_bytes(new.public) != public_bytes(old.public)
    assert new.name == old.name
    assert (site.is_taken(new), site.is_taken(old)) == (True, True)
    assert site.audited("key-changed") == [f"{public_bytes(old.public).hex()} to {public_bytes(new.public).hex()}"]
    with site.database.write() as connection:
        connection.execute(update(schema.devices).values(previous_until_ms=now_ms() - 1))
    assert (site.is_taken(new), site.is_taken(old)) == (True, False)


def test_of_three_keys_the_first_is_taken_no_longer(site: Site) -> None:
    first = site.change()
    second = site.change()
    assert [site.is_taken(one) for one in (first, second, site.store.identity)] == [False, True, True]
    assert len(site.audited("key-changed")) == 2


def test_the_store_keeps_the_new_key_and_renews_its_certificate_with_it(
    site: Site, open_store: Callable[..., Store]
) -> None:
    site.change()
    new = public_bytes(site.store.identity.public)
    site.store.close()
    store = open_store()
    assert public_bytes(store.identity.public) == new
    assert site.enrolled.renew(store.identity, synced=False)


def test_cut_off_behind_the_hub_s_word_the_next_call_ends_the_same_change(
    site: Site, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Store) -> None:
        raise KeyboardInterrupt

    old = site.store.identity
    with monkeypatch.context() as patched:
        patched.setattr(Store, "take_identity", killed)
        with pytest.raises(KeyboardInterrupt):
            site.change()
    site.store.close()
    site.store = open_store()
    assert public_bytes(site.store.identity.public) == public_bytes(old.public)
    assert site.is_taken(old), "and meanwhile it is heard"
    assert site.enrolled.renew(old, synced=False), "and its certificate is renewed"
    site.change()
    assert site.is_taken(site.store.identity)
    assert len(site.audited("key-changed")) == 1


def test_a_process_that_runs_meanwhile_signs_with_the_new_key(site: Site, open_store: Callable[..., Store]) -> None:
    running = open_store()
    old = running.identity
    site.change()
    assert public_bytes(running.identity.public) == public_bytes(site.store.identity.public) != public_bytes(old.public)
    assert site.is_taken(running.identity)


def test_a_hub_that_cannot_be_reached_or_refuses_changes_nothing_here(site: Site) -> None:
    old = public_bytes(site.store.identity.public)
    operations.revoke(site.config, site.store.identity.name)
    with pytest.raises(EnrolmentError, match="revoked"):
        site.change()
    site.enrolled.url = "https://127.0.0.1:1"
    with pytest.raises(EnrolmentError):
        site.change()
    assert public_bytes(site.store.identity.public) == old


@pytest.mark.parametrize("what", ["old", "new", "device", "same", "previous"])
def test_a_change_that_is_not_proven_is_refused(what: str, site: Site) -> None:
    old, new = (site.change(), Identity.create("x")) if what == "previous" else (site.store.identity, Identity.create())
    if what == "same":
        new = old
    stranger = Identity.create()
    keys = public_bytes(old.public), public_bytes(new.public)
    said = changed_part(old.name, *keys)
    request = IdentityRequest(
        device="another" if what == "device" else old.name,
        old_key=keys[0].hex(),
        new_key=keys[1].hex(),
        old_signature=(stranger if what == "old" else old).private.sign(said).hex(),
        new_signature=(stranger if what == "new" else new).private.sign(said).hex(),
    )
    with site.database.read() as connection:
        before = connection.execute(select(schema.devices)).all()
    with pytest.raises(EnrolmentError):
        Registrar(site.config, site.database).change_identity(request)
    with site.database.read() as connection:
        assert connection.execute(select(schema.devices)).all() == before


def test_a_stick_that_was_written_before_is_imported_and_its_answer_opens(site: Site, tmp_path: Path) -> None:
    store, hub_key = site.store, public_key(operations.public_key(site.config))
    store.append(make_item())
    stick = tmp_path / "stick.aidpost"
    export_stick(store, stick, hub_name=site.config.name, hub_key=hub_key)
    site.change()
    done = import_stick(site.config, stick)
    assert (done.held, done.refused) == (1, 0)
    import_receipts(store, done.receipts, hub_name=site.config.name, hub_key=hub_key)
    assert Outbox(store).next() is None, "receipted"
    with site.database.write() as connection:
        connection.execute(update(schema.devices).values(previous_until_ms=now_ms() - 1))
    with pytest.raises(EnvelopeError):
        import_stick(site.config, stick)


def test_a_new_code_ends_the_old_keys_at_once(site: Site) -> None:
    """What to do when the old key is in other hands."""
    old = site.change()
    code = operations.enrolment_code(site.config, site.store.identity.name)
    folder = site.store.folder / enrolment.FOLDER
    enrolment.enroll(code, site.store.identity, site.store.key, folder, synced=False)
    assert (site.is_taken(site.store.identity), site.is_taken(old)) == (True, False)


def test_a_change_that_waits_for_the_hub_outlives_a_change_of_the_device_key(
    site: Site, open_store: Callable[..., Store]
) -> None:
    following = public_bytes(site.store.next_identity().public)
    site.store.close()
    other = DeviceKey(bytes(range(32)), "another")
    rotation.rotate(site.store.folder, KEY, other, lambda _: None, lambda: None)
    store = open_store(key=other)
    assert public_bytes(store.next_identity().public) == following


def test_by_command_it_waits_for_the_sender_and_for_an_enrolment(tmp_path: Path) -> None:
    state, settings = tmp_path / "state", tmp_path / "aidpost.toml"
    settings.write_text("")
    command = ["--config", str(settings), "--state-dir", str(state), "board", "rotate-key", "--identity"]
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, UsageError)
    assert "board provision --code" in done.exception.remedy
    with publisher.sending(state):
        done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, StoreLockedError)
