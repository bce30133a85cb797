"""A power cut at any moment of a change of the device key: whoever has the old key or the new one has everything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from aidpost.board import rekey
from aidpost.board.console.people import reseal_workers
from aidpost.errors import AidpostError, KeyUnavailableError
from aidpost.sync import _recovery, enrolment, keys, rotation, seal
from aidpost.sync._writer import connect
from aidpost.sync.clock import SystemClock
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store


@pytest.fixture(autouse=True)
def without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at lies in a folder of the test's: no need to wait for the machine's own disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def trace(harness: ModuleType, shim: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return harness.traced(shim, tmp_path_factory.mktemp("traced"), workload="rotation_workload.py")


class Check:
    """What must hold of a device's folder after a cut."""

    def __init__(self, workload: ModuleType) -> None:
        self._workload = workload
        self.interrupted = 0

    def __call__(self, image: Path, acknowledged: Iterable[bytes]) -> str | None:
        told = [bytes.fromhex(json.loads(line)["key"]) for lines in acknowledged for line in lines.splitlines()]
        if not told:
            return None
        state = image / "state"
        try:
            lying = keys.from_file(state / rekey.KEY_FILE)
        except AidpostError as error:
            return f"the key file is gone: {error}"
        if not rotation.under_way(state):
            # nothing was begun, or all of it is done: what was said last serves, or the next one already
            return self._whole(state, lying)
        self.interrupted += 1
        before = DeviceKey(told[-1], "the last that was said")
        try:
            pair = [before, DeviceKey(self._next(state, before), "the next")]
        except AidpostError as error:
            return f"the journal does not open: {error}"
        if lying.secret not in {one.secret for one in pair}:
            return "the key file is neither"
        for key, other in (pair, pair[::-1]):
            copy = image / f"given-{key.source}"
            shutil.copytree(state, copy)
            if wrong := self._comes_back(copy, key, other):
                return f"given {key.source}: {wrong}"
        return None

    @staticmethod
    def _next(state: Path, before: DeviceKey) -> bytes:
        journal = rotation._journal(state)
        for sealed in (journal.new, journal.old):
            try:
                return seal.unseal(before.secret, sealed, rotation._PLACE)
            except seal.SealBrokenError:
                continue
        raise KeyUnavailableError(operation="", target="", cause="with the key that was said last")

    def _comes_back(self, state: Path, key: DeviceKey, other: DeviceKey) -> str | None:
        try:
            given = rotation.come_back(state, [key], reseal_workers, lambda _: None)
        except AidpostError as error:
            return f"it does not come back: {error}"
        if given.secret != key.secret or rotation.under_way(state):
            return "it is not at its end"
        return self._whole(state, key) or self._closed(state, other)

    def _whole(self, state: Path, key: DeviceKey) -> str | None:
        try:
            with Store.open(state, key, clock=SystemClock()) as store:
                found = store.envelopes("report", range(1, self._workload.RECORDS + 1))
                if len(found) != self._workload.RECORDS or store.notes():
                    return f"{len(found)} records open, {store.notes()}"
                ((sha256,),) = store.read("SELECT sha256 FROM blob")
                if store.read_blob(bytes(sha256).hex()) != self._workload.PHOTO:
                    return "the photograph is another one"
                spare = store.read("SELECT wrapped FROM spare_key EXCEPT SELECT wrapped FROM patient_key")
                if spare:
                    return "the spare keys are not the keys"
            enrolment._tls_key(state / enrolment.FOLDER, key)
            seal.unseal(key.secret, self._worker(state), b"worker amina")
        except (AidpostError, seal.SealBrokenError) as error:
            return f"it does not open: {error!r}"
        return None

    @staticmethod
    def _worker(state: Path) -> bytes:
        db = connect(state / "console.sqlite3")
        try:
            return bytes(db.execute("SELECT sealed FROM worker").fetchone()[0])
        finally:
            db.close()

    def _closed(self, state: Path, other: DeviceKey) -> str | None:
        """Nothing here opens any more with the other key."""
        base = _recovery._base(state)
        assert base is not None
        sealed = [(base.identity, b"identity"), (self._worker(state), b"worker amina")]
        db = connect(state / "store.sqlite3")
        for patient, wrapped in db.execute("SELECT patient, wrapped FROM patient_key"):
            sealed.append((bytes(wrapped), b"patient" + bytes(patient)))
        db.close()
        for one, place in sealed:
            try:
                seal.unseal(other.secret, one, place)
            except seal.SealBrokenError:
                continue
            return f"{place[:16]!r} still opens with {other.source}"
        try:
            enrolment._tls_key(state / enrolment.FOLDER, other)
        except KeyUnavailableError:
            return None
        return "the TLS key still opens with the other key"


def test_a_cut_at_any_moment_leaves_all_to_whoever_has_the_old_key_or_the_new(  # type: ignore[no-untyped-def]
    harness: ModuleType, rotation_workload: ModuleType, trace, tmp_path: Path
) -> None:
    check = Check(rotation_workload)
    looked, found = harness.violations(trace, tmp_path, check=check)
    print(f"{looked} power cuts, {check.interrupted} of them within a change of the key, {len(found)} broken promises")
    assert found == []
    assert check.interrupted > 50


@pytest.mark.parametrize(
    ("what", "left_out"),
    [
        ("the journal", lambda one: one.path.startswith("state/device-key.rotation")),
        ("the database", lambda one: one.path.startswith("state/store.sqlite3")),
        ("the TLS key", lambda one: one.path.startswith("state/enrolment/device.key")),
        ("the key file", lambda one: one.path.startswith("state/device.key.")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_leaving_out_any_sync_of_it_breaks_a_promise(  # type: ignore[no-untyped-def]
    what: str,
    left_out,
    harness: ModuleType,
    rotation_workload: ModuleType,
    trace,
    tmp_path: Path,
) -> None:
    variants = ("nothing more", "names survive")
    check = Check(rotation_workload)
    _, found = harness.violations(trace, tmp_path, skip=left_out, variants=variants, stop_at_first=True, check=check)
    assert found, f"nothing goes wrong without the sync of {what}"
