"""Another device key: by command, from one place to another, with everything that hangs on it."""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from device_records import make_item

from aidpost.board import device, rekey
from aidpost.board.cli import cli
from aidpost.board.configuration import Configuration, StoreSection
from aidpost.board.console.database import ConsoleDatabase
from aidpost.board.console.people import Workers
from aidpost.errors import KeyUnavailableError
from aidpost.sync import enrolment, keys, rotation, seal
from aidpost.sync._durable import make_folder
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import RecordClass
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store

WORDS = "a long passphrase of this device"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test need not cost a guesser anything."""
    monkeypatch.setattr(keys, "_SCRYPT_N", 2**4)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A device with two exams, a photograph, a TLS key and a worker, under a key file."""
    folder = tmp_path / "state"
    key = keys.from_file(folder / rekey.KEY_FILE, create=True)
    with Store.open(folder, key, clock=SystemClock(), name="unit-1") as store:
        store.append(make_item(RecordClass.REPORT, b"photograph" * 3_000))
        store.append(make_item(RecordClass.VITALS))
        screen = ConsoleDatabase(folder)
        Workers(screen, store).add("Amina", "4711", supervisor=True)
        screen.close()
    make_folder(folder / enrolment.FOLDER)
    enrolment._tls_key(folder / enrolment.FOLDER, key, create=True)
    return folder


def aidpost(state: Path, *arguments: str, typed: str = "", key: str = "file") -> Result:
    settings = state.parent / "aidpost.toml"
    settings.write_text(f'[store]\nkey = "{key}"\n')
    command = ["--config", str(settings), "--state-dir", str(state), *arguments]
    return CliRunner().invoke(cli, command, input=typed)


def said(done: Result) -> str:
    """What a person reads: `main` prints the error that ends a command."""
    return f"{done.output} {done.exception!r}"


def require_whole(state: Path, key: DeviceKey) -> None:
    """Records, photograph, PIN and TLS key are all under this key."""
    with Store.open(state, key, clock=SystemClock()) as store:
        assert [len(store.envelopes(cls, [1])) for cls in ("report", "vitals", "image")] == [1, 1, 1]
        ((sha256,),) = store.read("SELECT sha256 FROM blob")
        assert store.read_blob(bytes(sha256).hex()) == b"photograph" * 3_000
        screen = ConsoleDatabase(state)
        assert Workers(screen, store).check("Amina", "4711") is not None
        screen.close()
    enrolment._tls_key(state / enrolment.FOLDER, key)
    assert not rotation.under_way(state)


def everything(state: Path) -> bytes:
    """All bytes of a card, as a thief has them."""
    return b"".join(one.read_bytes() for one in sorted(state.rglob("*")) if one.is_file())


def test_from_a_key_file_to_a_passphrase_leaves_a_card_that_says_nothing(state: Path) -> None:
    old = keys.from_file(state / rekey.KEY_FILE)
    with Store.open(state, old, clock=SystemClock()) as store:
        wrapped = [bytes(row[0]) for row in store.read("SELECT wrapped FROM patient_key")]
        (identity,) = store.read("SELECT value FROM meta WHERE name = 'identity'")[0]
        name = store.identity.name
    assert len(wrapped) >= 2
    done = aidpost(state, "board", "rotate-key", "--to", "passphrase", typed=f"{WORDS}\n{WORDS}\n")
    assert done.exit_code == 0, said(done)
    assert 'store.key = "passphrase"' in said(done)
    card = everything(state)
    for secret in (*wrapped, bytes(identity), old.secret, b"photograph" * 4, WORDS.encode()):
        assert secret not in card
    with pytest.raises(KeyUnavailableError, match="sealed with another device key"):
        Store.open(state, old, clock=SystemClock())
    key = keys.from_passphrase(state, WORDS)
    require_whole(state, key)
    with Store.open(state, key, clock=SystemClock()) as store:
        assert store.identity.name == name, "the hub knows the device by this, and by the same signature"
    again = aidpost(state, "outbox", "status", "--json", typed=f"{WORDS}\n", key="passphrase")
    assert again.exit_code == 0, again.output


def test_a_new_passphrase_ends_the_old_one(state: Path) -> None:
    aidpost(state, "board", "rotate-key", "--to", "passphrase", typed=f"{WORDS}\n{WORDS}\n")
    done = aidpost(state, "board", "rotate-key", typed=f"{WORDS}\nother words\nother words\n", key="passphrase")
    assert done.exit_code == 0, said(done)
    refused = aidpost(state, "outbox", "status", typed=f"{WORDS}\n", key="passphrase")
    assert refused.exit_code == 1
    assert "another device key" in said(refused)
    require_whole(state, keys.from_passphrase(state, "other words"))


@pytest.mark.parametrize("given", ["first words", "second words"])
@pytest.mark.parametrize("killed_at", ["the workers", "the salt"])
def test_interrupted_between_two_passphrases_either_of_them_comes_back(
    given: str, killed_at: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aidpost(state, "board", "rotate-key", "--to", "passphrase", typed="first words\nfirst words\n")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rekey, "reseal_workers" if killed_at == "the workers" else "_place_salt", cut)
        with pytest.raises(KeyboardInterrupt):
            rekey.rotate(state, keys.from_passphrase(state, "first words"), "passphrase", lambda: "second words")
    assert rotation.under_way(state)
    configuration = Configuration(store=StoreSection(key="passphrase"))
    with pytest.raises(KeyUnavailableError, match="neither the old nor the new"):
        device.device_key(configuration, state, lambda: "third words")
    key = device.device_key(configuration, state, lambda: given)
    require_whole(state, key)
    assert device.device_key(configuration, state, lambda: given) == key


def test_it_waits_until_the_device_is_stopped_and_until_a_damaged_store_is_dealt_with(state: Path) -> None:
    key = keys.from_file(state / rekey.KEY_FILE)
    with Store.open(state, key, clock=SystemClock()):
        refused = aidpost(state, "board", "rotate-key")
    assert (refused.exit_code, "systemctl stop aidpost" in said(refused)) == (1, True), said(refused)
    make_folder(state / "quarantine")
    refused = aidpost(state, "board", "rotate-key")
    assert (refused.exit_code, "quarantine/" in said(refused)) == (1, True), said(refused)
    require_whole(state, key)


def test_another_key_than_the_store_s_changes_nothing(state: Path) -> None:
    before = hashlib.sha256(everything(state)).digest()
    with pytest.raises(KeyUnavailableError, match="not the key that opens it"):
        rekey.rotate(state, DeviceKey(bytes(32), "key of another device"), "file", lambda: "")
    assert hashlib.sha256(everything(state)).digest() == before


@pytest.mark.parametrize("works", [True, False])
def test_to_a_systemd_credential_by_systemd_creds(
    works: bool, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself needs systemd and, for more than a key on the disk, a TPM: here one that keeps what it is
    given, or fails as it does for others than root."""
    programs, kept = tmp_path / "bin", tmp_path / "credstore/aidpost-device-key"
    programs.mkdir()
    kept.parent.mkdir()
    script = '#!/bin/sh\n[ "$1 $2 $3" = "encrypt --name=aidpost-device-key -" ] && cat > "$4"\n'
    (programs / "systemd-creds").write_text(script if works else "#!/bin/sh\necho Permission denied >&2\nexit 1\n")
    (programs / "systemd-creds").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    old = keys.from_file(state / rekey.KEY_FILE)
    done = aidpost(state, "board", "rotate-key", "--to", "systemd-credential", "--credential", str(kept))
    assert done.exit_code == (0 if works else 1), said(done)
    if works:
        assert not (state / rekey.KEY_FILE).exists()
        configuration = Configuration(store=StoreSection(key="systemd-credential"))
        key = device.device_key(configuration, state, lambda: "", credentials=kept.parent)
        assert key.secret != old.secret
    else:
        assert "Permission denied" in said(done)
        key = device.device_key(Configuration(), state, lambda: "")
        assert key == old, "the key that is there serves"
    require_whole(state, key)


def test_a_lost_key_file_is_said_and_not_made_anew(state: Path) -> None:
    (state / rekey.KEY_FILE).unlink()
    with pytest.raises(KeyUnavailableError, match="Restore the key file"):
        device.device_key(Configuration(), state, lambda: "")
    assert not (state / rekey.KEY_FILE).exists()


def test_the_tls_key_still_speaks_for_the_device(state: Path) -> None:
    before = enrolment._tls_key(state / enrolment.FOLDER, keys.from_file(state / rekey.KEY_FILE))
    new = rekey.rotate(state, keys.from_file(state / rekey.KEY_FILE), "file", lambda: "")
    after = enrolment._tls_key(state / enrolment.FOLDER, new)
    assert after.private_numbers() == before.private_numbers(), "the hub's certificate is still of it"
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context().load_cert_chain(
            state / enrolment.FOLDER / "device.key", password=lambda: b"the old password"
        )
    assert len(new.secret) == seal.KEY_BYTES
