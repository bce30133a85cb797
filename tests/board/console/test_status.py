"""The status bar says what is so, and the screen locks when nobody touches it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from device_records import KEY, make_item
from starlette.requests import HTTPConnection

from aidpost.board.configuration import Configuration, ConsoleSection
from aidpost.board.console.clock import ConfirmedClock
from aidpost.board.console.people import Workers
from aidpost.board.console.site import COOKIE, Session, Site
from aidpost.board.console.status import WARN_DAYS, Status, look
from aidpost.board.console.workspace import Workspace
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

CONFIGURATION = Configuration(console=ConsoleSection(lock_minutes=5))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    boot = tmp_path / "root/proc/sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("boot-1\n")
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(tmp_path / "root"), name="unit-1") as store:
        made = Workspace(CONFIGURATION, store, cast("object", None), practice=False)  # type: ignore[arg-type]
        yield made
        made.close()


def test_what_waits_is_counted_with_how_long_and_nothing_waits_in_the_beginning(workspace: Workspace) -> None:
    before = look(workspace, lambda: False)
    assert (before.sending, before.queued, before.connected) == ("sent", 0, False)
    workspace.store.append(make_item())
    after = look(workspace, lambda: True)
    assert (after.sending, after.queued, after.connected) == ("waiting", 1, True)
    assert after.waiting_s is not None
    assert look(workspace, None).connected is None, "a device that never sends has no hub to be without"


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, (0, "seconds")), (59, (59, "seconds")), (3_700, (1, "hours")), (200_000, (2, "days"))]
)
def test_wait_is_said_in_its_largest_whole_unit(
    workspace: Workspace, seconds: int | None, said: tuple[int, str]
) -> None:
    assert look(workspace, None)._replace(waiting_s=seconds).waited == said


def test_clock_that_nobody_set_is_not_sure(workspace: Workspace) -> None:
    assert not look(workspace, None).clock_sure


class Supply(NamedTuple):
    kind: str
    capacity: str
    status: str


@pytest.mark.parametrize(
    ("supply", "expected"),
    [
        (Supply("Battery", "17", "Discharging"), (17, False)),
        (Supply("Battery", "80", "Charging"), (80, True)),
        (Supply("Mains", "", ""), (None, False)),
        (Supply("Battery", "broken", "Discharging"), (None, False)),
    ],
)
def test_battery_is_read_from_the_kernel_and_never_guessed(
    workspace: Workspace, tmp_path: Path, supply: Supply, expected: tuple[int | None, bool]
) -> None:
    folder = tmp_path / "board/sys/class/power_supply/x"
    folder.mkdir(parents=True)
    for name, text in zip(("type", "capacity", "status"), supply, strict=True):
        (folder / name).write_text(text + "\n")
    status = look(workspace, None, tmp_path / "board")
    assert (status.battery, status.charging) == expected


def test_room_for_less_than_two_weeks_is_warned_of(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def room(days: float) -> Status:
        free = int((days * 90 + CONFIGURATION.store.reserve_mb) * (1 << 20))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free * 2, free, free))
        return look(workspace, None)

    assert room(WARN_DAYS + 1).room_is_short is False
    assert room(WARN_DAYS - 1).room_is_short is True
    assert room(0).days_left == 0


class Screen:
    """A screen whose time the test turns."""

    def __init__(self, workspace: Workspace) -> None:
        self.now = 0.0
        workers = Workers(workspace.database, workspace.store)
        workers.add("Rose", "2580", supervisor=True)
        self.site = Site(
            CONFIGURATION,
            workspace,
            workspace,
            workers,
            lambda one: look(one, None),
            ConfirmedClock(),
            clock=lambda: self.now,
        )
        self.session = self.site.enter("Rose", supervisor=True)

    def there(self, *, touch: bool = True) -> Session | None:
        cookie = f"{COOKIE}={self.session.token}".encode()
        return self.site.session(HTTPConnection({"type": "http", "headers": [(b"cookie", cookie)]}), touch=touch)


def test_screen_locks_after_its_minutes_without_a_touch_and_not_before(workspace: Workspace) -> None:
    screen = Screen(workspace)
    for _ in range(5):
        screen.now += 299
        assert screen.there() is not None, "every touch counts anew"
    screen.now += 301
    assert screen.there() is None
    screen.now -= 301
    assert screen.there() is None, "and it stays locked"


def test_status_bar_that_looks_by_itself_keeps_nobody_unlocked(workspace: Workspace) -> None:
    screen = Screen(workspace)
    for _ in range(6):
        screen.now += 49
        assert screen.there(touch=False) is not None
    screen.now += 10
    assert screen.there(touch=False) is None


def test_there_is_one_screen_so_another_worker_ends_the_session_before(workspace: Workspace) -> None:
    screen = Screen(workspace)
    screen.site.enter("Amani", supervisor=False)
    assert screen.there() is None
