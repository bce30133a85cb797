"""The page of federated rounds: how far each is, who was refused and why, and what became of its head."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from aidpost.sync.hub import rounds
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.users import Session

PHASES = {"keys": "keys", "shares": "shares", "answer": "answers", "reveal": "unmasking"}


class _Verdict(msgspec.Struct):
    """What the page reads of a candidate's verdict."""

    reasons: tuple[str, ...] = ()


def rounds_page(site: Site, request: Request, session: Session) -> Response:
    """All rounds, the newest first. They are opened, closed and judged on the command line."""
    with site.database.read() as connection:
        found = rounds.progress(connection)
    reasons = {one.round: msgspec.json.decode(one.verdict, type=_Verdict).reasons for one in found if one.verdict}
    return site.render(request, "rounds.html", session, rounds=found, reasons=reasons, phases=PHASES)
