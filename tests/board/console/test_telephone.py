"""A locked-out worker and a code by telephone: once, for one worker, for few tries, whatever happens in between."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from console import SENSORS, Running
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from device_records import KEY
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aidpost.board.configuration import load
from aidpost.board.console.database import ConsoleDatabase
from aidpost.board.console.people import LOCK_S, LONGEST_LOCK_S, TRIES, Workers
from aidpost.board.console.telephone import PAUSE_S, Telephone
from aidpost.board.device import device_key, open_store
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store
from aidpost.sync.telephone import Line, spaced

HUB = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
PINS = {"Rose": "2580", "Amani": "3691"}


def test_the_line_follows_an_identity_that_another_process_changes(tmp_path: Path) -> None:
    (tmp_path / "hub.pub").write_text(HUB.public_key().public_bytes_raw().hex())
    sync = f'[sync]\nenabled = false\nhub_key_file = "{tmp_path / "hub.pub"}"\n'
    with Running(tmp_path / "device", SENSORS + sync, practice=False) as running:
        running.set_up()
        running.tap("/leave")
        for _ in range(TRIES):
            running.ask("POST", "/unlock", {"worker": "Rose", "pin": "0000"})

        def heard() -> list[bool]:
            """Whether the hub, with the device's key of before and with the new one, makes out what is read out."""
            [shown] = re.findall(r"\d\d \d{5} \d{3}", running.page("/telephone?worker=Rose"))
            lines, said = [Line(HUB, one, name) for one in publics], shown.replace(" ", "")
            # with the worker's mark: the check digits alone let a wrong key pass once in a thousand
            return [line.heard(said) and line.workers(said, ["Rose"]) == ["Rose"] for line in lines]

        configuration = load(running.folder / "aidpost.toml")
        key = device_key(configuration, running.state, lambda: "")
        with open_store(configuration, running.state, key) as store:
            name = store.identity.name
            publics = [store.identity.public, store.next_identity().public]
            assert heard() == [True, False]
            store.take_identity()
            assert heard() == [False, True]


class Screen:
    """What the device remembers, what it does not, and the hub at the other end."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(folder, KEY, clock=SystemClock(), name="unit-1")
        self.now = 0.0
        own = self.store.identity
        self.line, self.hub = Line(own.private, HUB.public_key(), own.name), Line(HUB, own.public, own.name)
        self._opened: list[ConsoleDatabase] = []
        self.restart()
        for name, pin in PINS.items():
            self.workers.add(name, pin, supervisor=False)

    def restart(self) -> None:
        """As after a power cut: nothing is closed, everything is read from the disk."""
        self.database = ConsoleDatabase(self.store.folder)
        self._opened.append(self.database)
        self.workers = Workers(self.database, self.store, lambda: self.now)
        # argon2 at its lowest: what is tested here is what is counted
        self.workers._hasher = type(self.workers._hasher)(time_cost=1, memory_cost=8, parallelism=1)
        self.telephone = Telephone(self.database, self.workers, self.line, lambda: self.now)

    def close(self) -> None:
        for one in self._opened:
            one.close()
        self.store.close()

    def lock_out(self, worker: str = "Rose") -> None:
        while not self.workers.locked_s(worker):
            assert self.workers.check(worker, "0000") is None

    def wrong(self, challenge: str) -> str:
        return f"{(int(self.hub.code(challenge)) + 1) % 10**8:08d}"


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    made = Screen(tmp_path / "device")
    yield made
    made.close()


def test_code_lets_the_worker_try_the_pin_again_and_opens_nothing_by_itself(screen: Screen) -> None:
    screen.lock_out()
    assert screen.workers.check("Rose", PINS["Rose"]) is None
    assert screen.telephone.answer("Rose", spaced(screen.hub.code(screen.telephone.challenge("Rose"))))
    assert screen.workers.check("Rose", "1111") is None
    assert screen.workers.check("Rose", PINS["Rose"]) is not None


def test_code_counts_once_also_when_the_worker_is_locked_out_again(screen: Screen) -> None:
    screen.lock_out()
    first = screen.telephone.challenge("Rose")
    code = screen.hub.code(first)
    assert screen.telephone.answer("Rose", code)
    assert not screen.telephone.answer("Rose", code)
    screen.lock_out()
    assert screen.telephone.challenge("Rose") != first
    assert not screen.telephone.answer("Rose", code)


def test_code_of_another_worker_or_another_device_fits_nobody_else(screen: Screen, tmp_path: Path) -> None:
    screen.lock_out("Rose")
    screen.lock_out("Amani")
    hers, his = screen.telephone.challenge("Rose"), screen.telephone.challenge("Amani")
    assert not screen.telephone.answer("Rose", screen.hub.code(his))
    other = Screen(tmp_path / "other")
    try:
        assert not screen.telephone.answer("Rose", other.hub.code(hers))
    finally:
        other.close()
    # a row moved to another worker on the disk is not theirs
    screen.database.write(lambda db: db.execute("UPDATE challenge SET digits = ? WHERE worker = 'Amani'", (hers,)))
    moved = screen.hub.mark("Amani") == screen.hub.mark("Rose")
    assert moved or not screen.telephone.answer("Amani", screen.hub.code(hers))


def test_wrong_codes_end_a_challenge_and_the_next_one_waits_whatever_is_switched_off(screen: Screen) -> None:
    screen.lock_out()
    screen.database.write(lambda db: db.execute("UPDATE worker SET failures = ?", (TRIES * 6,)))  # for hours
    challenge = screen.telephone.challenge("Rose")
    for _ in range(TRIES):
        assert not screen.telephone.answer("Rose", screen.wrong(challenge))
    assert not screen.telephone.answer("Rose", screen.hub.code(challenge)), "the right one comes too late"
    assert screen.telephone.challenge("Rose") == ""
    screen.now += PAUSE_S - 1
    screen.restart()
    assert screen.telephone.paused_s("Rose") == PAUSE_S
    assert screen.telephone.challenge("Rose") == ""
    screen.now += PAUSE_S
    fresh = screen.telephone.challenge("Rose")
    assert fresh not in ("", challenge)
    assert screen.telephone.answer("Rose", screen.hub.code(fresh))


def test_power_cut_between_reading_out_and_typing_in_keeps_the_challenge_and_its_tries(screen: Screen) -> None:
    screen.lock_out()
    challenge = screen.telephone.challenge("Rose")
    for _ in range(TRIES - 1):
        screen.restart()
        assert screen.telephone.challenge("Rose") == challenge
        assert not screen.telephone.answer("Rose", screen.wrong(challenge))
    screen.restart()
    assert screen.telephone.answer("Rose", screen.hub.code(challenge))
    screen.restart()
    assert screen.workers.check("Rose", PINS["Rose"]) is not None
    assert not screen.telephone.answer("Rose", screen.hub.code(challenge))


def test_who_is_not_locked_out_is_given_no_digits(screen: Screen) -> None:
    assert screen.telephone.challenge("Rose") == ""
    assert screen.telephone.challenge("Nobody") == ""
    screen.lock_out()
    code = screen.hub.code(screen.telephone.challenge("Rose"))
    screen.workers.unlock("Rose")  # a supervisor was faster
    assert not screen.telephone.answer("Rose", code)
    screen.lock_out()
    assert not screen.telephone.answer("Rose", code)


def test_each_round_of_wrong_pins_locks_for_twice_as_long_up_to_four_hours(screen: Screen) -> None:
    lasted = []
    for _ in range(9):
        screen.lock_out()
        lasted.append(screen.workers.locked_s("Rose"))
        screen.now += lasted[-1]
    assert lasted[:3] == [LOCK_S, 2 * LOCK_S, 4 * LOCK_S]
    assert lasted[-1] == LONGEST_LOCK_S
    assert screen.workers.check("Rose", PINS["Rose"]) is not None
    screen.lock_out()
    assert screen.workers.locked_s("Rose") == LOCK_S, "the right PIN begins anew"


class Anything(RuleBasedStateMachine):
    """PINs, codes, supervisors, power cuts and waits in any order, against what may happen."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.screen = Screen(Path(self.folder.name) / "device")
        self.used: set[str] = set()
        self.read_out: dict[str, str] = {}

    def teardown(self) -> None:
        self.screen.close()
        self.folder.cleanup()

    workers = st.sampled_from(sorted(PINS))

    @rule(worker=workers, times=st.integers(1, 6))
    def wrong_pin(self, worker: str, times: int) -> None:
        for _ in range(times):
            assert self.screen.workers.check(worker, "0000") is None

    @rule(worker=workers)
    def right_pin(self, worker: str) -> None:
        locked = self.screen.workers.locked_s(worker) > 0
        assert (self.screen.workers.check(worker, PINS[worker]) is None) == locked

    @rule(worker=workers)
    def read_digits(self, worker: str) -> None:
        challenge = self.screen.telephone.challenge(worker)
        if challenge:
            assert self.screen.workers.locked_s(worker) > 0
            assert self.screen.hub.heard(challenge)
            self.read_out[worker] = challenge

    @rule(worker=workers, of=workers)
    def type_code(self, worker: str, of: str) -> None:
        challenge = self.read_out.get(of, "")
        rows = self.screen.database.read("SELECT digits, wrong FROM challenge WHERE worker = ?", (worker,))
        opened = rows and rows[0][0] == challenge and rows[0][1] < TRIES
        locked = self.screen.workers.locked_s(worker) > 0
        done = self.screen.telephone.answer(worker, self.screen.hub.code(challenge))
        assert done == bool(opened and locked and worker == of)
        if done:
            assert challenge not in self.used
            self.used.add(challenge)
            assert self.screen.workers.locked_s(worker) == 0

    @rule(worker=workers, times=st.integers(1, 6))
    def wrong_code(self, worker: str, times: int) -> None:
        for _ in range(times):
            assert not self.screen.telephone.answer(worker, "no code")

    @rule(worker=workers)
    def supervisor(self, worker: str) -> None:
        self.screen.workers.unlock(worker)

    @rule(seconds=st.sampled_from([1.0, LOCK_S, PAUSE_S + LOCK_S, LONGEST_LOCK_S]))
    def wait(self, seconds: float) -> None:
        self.screen.now += seconds

    @rule()
    def power_cut(self) -> None:
        self.screen.restart()

    @invariant()
    def no_challenge_is_ever_open_after_its_tries(self) -> None:
        rows = self.screen.database.read("SELECT worker, wrong FROM challenge") if hasattr(self, "screen") else []
        assert all(wrong <= TRIES for _, wrong in rows)


Anything.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestAnything = Anything.TestCase
