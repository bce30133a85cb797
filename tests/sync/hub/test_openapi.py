"""What other programs may ask of the hub is what its description says, for any input: schemathesis finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from starlette.routing import Route

from aidpost.sync.hub import openapi
from aidpost.sync.hub.server import HubServer
from aidpost.sync.hub.web import create_app

from .conftest import FakeDevice
from .web_client import logged_in, whole_report

EXAMPLES = 12
"""Of each operation, from a seed."""


def test_schemathesis_finds_nothing(server: HubServer, device: FakeDevice, tmp_path: Path) -> None:
    whole_report(server, device)
    cookie = logged_in(server, "root").cookies["session"]
    settings = tmp_path / "schemathesis.toml"
    # so that it may also leave the cookie out, and must then be refused
    settings.write_text(
        f'max-redirects = 0\n[auth.openapi.session]\napi_key = "{cookie}"\n'
        '[checks.negative_data_rejection]\nexpected-statuses = ["303", "4xx"]\n'
    )
    command = [
        sys.executable, "-W", "ignore", "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "--config-file", str(settings), "run",
        f"{server.url}openapi.json", "--seed", "1",
        "--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert str(len(openapi.description("session")["paths"])) in done.stdout


def test_every_interface_for_programs_is_described(server: HubServer) -> None:
    described = set(openapi.description("session")["paths"])
    app = create_app(server.config, server.database, server.files)
    routes = {route.path for route in app._app.routes if isinstance(route, Route)}  # type: ignore[attr-defined]
    for_programs = {path for path in routes if path.startswith("/fhir/") or path.endswith((".csv", ".json"))}
    assert described == (for_programs | {"/healthz", "/metrics"}) - {"/openapi.json"}
