"""What is always visible: queue, clock, battery, room, and what came back from the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aidpost.board.console import answers
from aidpost.board.console.sensors import Sensor
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.records import Review, TriageLevel
from aidpost.sync import outbox

WARN_DAYS = 14


class Status(NamedTuple):
    """`sending` is "sent", "waiting", "refused" or "off"; `waiting_s` how long the oldest has waited. `battery` is in
    percent, None where there is none. `reviews` are exams whose review nobody has read here, `unanswered` urgent ones
    of today that the hub has not answered."""

    sending: str
    queued: int
    acknowledged: int
    refused: int
    waiting_s: int | None
    connected: bool | None
    clock_sure: bool
    battery: int | None
    charging: bool
    days_left: int
    reviews: int
    unanswered: int
    overdue: int
    sensors: tuple[Sensor, ...] = ()

    @property
    def room_is_short(self) -> bool:
        """Whether the disk is full within two weeks."""
        return self.days_left < WARN_DAYS

    @property
    def lacking(self) -> list[Sensor]:
        """The sensors of which something is known to be wrong."""
        return [one for one in self.sensors if one.standing.light == "bad"]

    @property
    def waited(self) -> tuple[int, str]:
        """How long the oldest record has waited, in the largest whole unit."""
        seconds = self.waiting_s or 0
        for unit, size in ((N_("days"), 86_400), (N_("hours"), 3_600), (N_("minutes"), 60)):
            if seconds >= size:
                return seconds // size, unit
        return seconds, N_("seconds")


def look(workspace: Workspace, connected: Callable[[], bool] | None, root: Path = Path("/")) -> Status:
    """The state of a workspace and of the board under `root`."""
    classes = outbox.status(workspace.store)
    queued, refused = sum(one.queued for one in classes), sum(one.dead for one in classes)
    oldest = max((one.oldest_s for one in classes if one.oldest_s is not None), default=None)
    online = None if connected is None else connected()
    sending = "refused" if refused else "waiting" if queued else "sent"
    battery, charging = _battery(root)
    reviews, unanswered = _answers(workspace)
    now = workspace.store.now()
    return Status(
        sending="off" if workspace.practice else sending,
        queued=queued,
        acknowledged=sum(one.receipted for one in classes),
        refused=refused,
        waiting_s=oldest,
        connected=online,
        clock_sure=now.synced,
        battery=battery,
        charging=charging,
        days_left=workspace.store.space.days_left(),
        reviews=reviews,
        unanswered=unanswered,
        overdue=answers.overdue(workspace),
        sensors=tuple(workspace.sensors_now()),
    )


def _battery(root: Path) -> tuple[int | None, bool]:
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        try:
            if (supply / "type").read_text().strip() == "Battery":
                status = (supply / "status").read_text().strip()
                return int((supply / "capacity").read_text()), status in ("Charging", "Full")
        except (OSError, ValueError):
            continue
    return None, False


def _answers(workspace: Workspace) -> tuple[int, int]:
    reviewed = {one.exam for one in workspace.store.inbox.records(Review, None)}
    answered = reviewed | {one.exam for one in workspace.store.acknowledgements()}
    urgent = [one for one in map(workspace.shown, workspace.today()) if one.triage.level >= TriageLevel.URGENT]
    return len(answers.unread(workspace)), sum(one.exam.id not in answered for one in urgent)
