"""Tells people of alerts by mail and webhook, and tells others when nobody answers."""

from __future__ import annotations

import hashlib
import hmac
import logging
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError

from aidpost.records import TriageLevel
from aidpost.sync.hub import alerts
from aidpost.sync.hub._post import FAULTS, TIMEOUT_S, post
from aidpost.sync.hub._worker import Worker
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_AGAIN_MS = 60_000
"""When a contact that could not be reached is tried again."""


class Notifier(Worker):
    """A thread that looks every second. Several hubs on one database share the work: each alert is claimed first; one
    that was claimed and not sent is sent after the next start."""

    def __init__(self, config: HubConfig, database: Database) -> None:
        self._config, self._database = config, database
        super().__init__("hub-alerts", TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            try:
                self.turn(now_ms())
            except (DBAPIError, OSError):
                _log.exception("alerts cannot be looked for; trying again")

    def turn(self, now: int) -> None:
        """Opens what is to be opened and passes on what is due, as of `now` (milliseconds of Unix time)."""
        with self._database.read() as connection:
            if not alerts.anything_due(connection, now):
                return
        with self._database.write() as connection:
            alerts.open_findings(connection, now)
            due = alerts.claim_due(connection, now, _AGAIN_MS)
        for alert in due:
            self._pass_on(alert, now)

    def _pass_on(self, alert: Any, now: int) -> None:
        groups = self._config.alert_contacts
        group = groups[min(alert.level, len(groups) - 1)] if groups else ()
        done = [(contact, self._tell(contact, alert)) for contact in group]
        with self._database.write() as connection:
            for contact, fault in done:
                alerts.step(connection, alert.id, "failed" if fault else "sent", contact, fault, now)
            if not group:
                alerts.step(connection, alert.id, "shown", "pages", "", now)
            if not done or any(not fault for _, fault in done):
                alerts.passed_on(connection, alert, now + self._config.alert_minutes * 60_000)

    def _tell(self, contact: str, alert: Any) -> str:
        """Empty, or why it did not work."""
        try:
            if contact.startswith("mailto:"):
                self._mail(contact.removeprefix("mailto:"), alert)
            else:
                self._post(contact, alert)
        except (*FAULTS, smtplib.SMTPException) as error:
            _log.warning("an alert does not reach %s: %s", contact, error)
            return str(error) or type(error).__name__
        return ""

    def _facts(self, alert: Any) -> dict[str, Any]:
        url = f"{self._config.public_url.rstrip('/')}/exams/{alert.exam}" if self._config.public_url else ""
        return {
            "alert": str(alert.id),
            "kind": alert.kind,
            "triage": list(TriageLevel)[alert.triage].value,
            "clinic": alert.clinic,
            "device": alert.device,
            "exam": str(alert.exam),
            "opened_ms": alert.opened_ms,
            "level": alert.level,
            "url": url,
        }

    def _mail(self, address: str, alert: Any) -> None:
        config, facts = self._config, self._facts(alert)
        what = "Recall: a clinician raised a result to" if alert.kind == "recall" else "Finding:"
        clinic = " ".join(alert.clinic.split())  # a header is one line
        message = EmailMessage()
        message["Subject"] = f"Aidpost {facts['triage'].upper()} at {clinic}"
        message["From"], message["To"] = config.smtp_sender, address
        message["Message-ID"] = f"<{alert.id}.{alert.level}@aidpost.{config.name}>"
        message.set_content(
            f"{what} {facts['triage']}, from {alert.device} at {clinic}.\n\n"
            f"Exam {alert.exam}\n{facts['url']}\n\n"
            "Log in, see the patient's exam, and answer for this alert on its page; until somebody does, it is passed "
            f"on every {config.alert_minutes} minutes.\n"
        )
        with self._smtp() as server:
            server.send_message(message)

    def _smtp(self) -> smtplib.SMTP:
        config = self._config
        if config.smtp_security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                config.smtp_host, config.smtp_port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=TIMEOUT_S)
        try:
            if config.smtp_security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if config.smtp_username:
                server.login(config.smtp_username, config.smtp_password)
        except BaseException:
            server.close()
            raise
        return server

    def _post(self, url: str, alert: Any) -> None:
        body = msgspec.json.encode(self._facts(alert))
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{alert.id}.{alert.level}"}
        if secret := self._config.webhook_secret:
            digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Aidpost-Signature"] = f"sha256={digest}"
        post(url, body, headers)
