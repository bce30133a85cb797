"""Urgent findings reach a person: by mail and webhook, further if nobody answers, each step kept."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import msgspec
import pytest
from aiosmtpd.controller import Controller
from ports import free_port
from sqlalchemy import select

from aidpost.errors import ConfigurationError
from aidpost.records import ExamReport, Triage, TriageLevel
from aidpost.sync.hub import schema
from aidpost.sync.hub._notifier import Notifier
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, make_report, wait_for
from .web_client import logged_in, send

MINUTE = 60_000


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
        self.letters.append(envelope)
        return "250 kept"


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted, answers as it is told."""

    posts: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012 - a class of each test
    answer = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).posts.append((dict(self.headers), body))
        self.send_response(type(self).answer)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


@pytest.fixture
def hook() -> Iterator[tuple[type[Hook], int]]:
    kind = type("ThisHook", (Hook,), {"posts": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kind, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(config: HubConfig, mailbox: tuple[Mailbox, int], hook: tuple[type[Hook], int]) -> HubConfig:
    return msgspec.structs.replace(
        config,
        alert_contacts=(("mailto:nurse@clinic.example",), (f"http://127.0.0.1:{hook[1]}/alert?to=district",)),
        smtp_host="127.0.0.1",
        smtp_port=mailbox[1],
        smtp_security="none",
        smtp_sender="hub@clinic.example",
        webhook_secret="a secret",
        public_url="https://hub.example/",
    )


@pytest.fixture
def urgent(server: HubServer, device: FakeDevice) -> ExamReport:
    server.notifier.stop()  # the tests turn it by hand
    report = make_report(triage=Triage(level=TriageLevel.EMERGENCY))
    send(server, device, device.message(device.envelope(report)), device.message(device.envelope(make_report())))
    return report


def steps(server: HubServer) -> list[tuple[str, str]]:
    with server.database.read() as connection:
        table = schema.alert_steps
        return [(row.step, row.target) for row in connection.execute(select(table).order_by(table.c.number))]


def test_urgent_finding_is_mailed_without_the_patients_name_and_escalates_until_answered(
    server: HubServer, urgent: ExamReport, mailbox: tuple[Mailbox, int], hook: tuple[type[Hook], int]
) -> None:
    (box, _), (posted, port) = mailbox, hook
    now = now_ms()
    turn = Notifier(server.config, server.database).turn
    turn(now)
    turn(now + 1)
    (letter,) = box.letters
    text = letter.content.decode()
    assert letter.rcpt_tos == ["nurse@clinic.example"]
    assert f"https://hub.example/exams/{urgent.exam.id}" in text
    assert "EMERGENCY at North clinic" in text
    assert "Amina" not in text
    turn(now + 14 * MINUTE)
    assert not posted.posts
    turn(now + 15 * MINUTE)
    ((headers, body),) = posted.posts
    assert hmac.new(b"a secret", body, hashlib.sha256).hexdigest() in headers["X-Aidpost-Signature"]
    told = json.loads(body)
    assert (told["triage"], told["exam"], told["level"]) == ("emergency", str(urgent.exam.id), 1)
    turn(now + 30 * MINUTE)
    assert len(posted.posts) == 2, "the last are told again and again"
    target = f"http://127.0.0.1:{port}/alert?to=district"
    sent = [("opened", "pages"), ("sent", "mailto:nurse@clinic.example"), ("sent", target), ("sent", target)]
    assert steps(server) == sent
    reader = logged_in(server, "okoro")
    reader.get("/alerts")
    alert = reader.text.split('action="/alerts/')[1].split('"')[0]
    assert reader.submit("/alerts", f"/alerts/{alert}", text="Seen, ambulance sent.") == 303
    turn(now + 60 * MINUTE)
    assert len(posted.posts) == 2
    assert steps(server) == [*sent, ("acknowledged", "Dr Okoro")]


def test_contact_that_cannot_be_reached_is_kept_as_failed_and_tried_again(
    server: HubServer, urgent: ExamReport, mailbox: tuple[Mailbox, int], hook: tuple[type[Hook], int]
) -> None:
    posted, port = hook
    posted.answer = 503
    config = msgspec.structs.replace(server.config, alert_contacts=((f"http://127.0.0.1:{port}/",),))
    turn, now = Notifier(config, server.database).turn, now_ms()
    turn(now)
    turn(now + MINUTE // 2)
    assert len(posted.posts) == 1
    turn(now + MINUTE)
    assert [step for step, _ in steps(server)] == ["opened", "failed", "failed"]
    posted.answer = 200
    turn(now + 2 * MINUTE)
    assert [step for step, _ in steps(server)][-1] == "sent"


def test_two_hubs_on_one_database_send_each_alert_once(
    server: HubServer, urgent: ExamReport, mailbox: tuple[Mailbox, int]
) -> None:
    now = now_ms()
    threads = [Thread(target=Notifier(server.config, server.database).turn, args=(now,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mailbox[0].letters) == 1


def test_signing_the_review_answers_for_the_finding(
    server: HubServer, urgent: ExamReport, mailbox: tuple[Mailbox, int]
) -> None:
    now = now_ms()
    turn = Notifier(server.config, server.database).turn
    turn(now)
    page = f"/exams/{urgent.exam.id}"
    assert logged_in(server, "okoro").submit(page, f"{page}/reviews", decision="confirmed") == 303
    turn(now + 20 * MINUTE)
    assert [step for step, _ in steps(server)] == ["opened", "sent", "acknowledged"]


def test_running_hub_notices_by_itself(server: HubServer, device: FakeDevice, mailbox: tuple[Mailbox, int]) -> None:
    report = make_report(triage=Triage(level=TriageLevel.URGENT))
    send(server, device, device.message(device.envelope(report)))
    wait_for(lambda: mailbox[0].letters, "the mail is sent")


@pytest.mark.parametrize("contact", ["nurse@clinic.example", "mailto:nobody", "ftp://x"])
def test_contact_that_is_none_stops_the_start(config: HubConfig, contact: str) -> None:
    with pytest.raises(ConfigurationError, match="alert_contacts"):
        msgspec.structs.replace(config, alert_contacts=((contact,),))


def test_mail_without_a_server_stops_the_start(config: HubConfig) -> None:
    with pytest.raises(ConfigurationError, match="alert_contacts"):
        msgspec.structs.replace(config, smtp_host="")
