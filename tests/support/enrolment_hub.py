"""A hub's enrolment port over TLS on a free loopback port, without broker and pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ports import free_port

from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.server import EnrolmentPort


@contextmanager
def enrolment_hub(folder: Path, **more: Any) -> Iterator[tuple[HubConfig, Database]]:
    """The hub's configuration and database while its port listens."""
    config = HubConfig(
        state_dir=str(folder),
        name="hub-1",
        broker_host="",
        listen_port=0,
        public_host="127.0.0.1",
        public_broker_port=free_port(),
        enrolment_bind="127.0.0.1",
        enrolment_port=free_port(),
        **more,
    )
    database = Database(config.url)
    port = EnrolmentPort(config, database)
    port.start()
    try:
        yield config, database
    finally:
        port.stop()
        database.close()
