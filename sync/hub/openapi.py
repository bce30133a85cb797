"""What other programs may ask of a hub: FHIR, tables, metrics, health. An OpenAPI 3.0 description, `/openapi.json`."""

from __future__ import annotations

from typing import Any

Node = dict[str, Any]

_UUID: Node = {"type": "string", "format": "uuid"}
_ID: Node = {"name": "id", "in": "path", "required": True, "schema": _UUID}
_PATIENT: Node = {"name": "patient", "in": "query", "required": True, "schema": _UUID}
_FHIR = "application/fhir+json"
_LOGIN: list[Node] = [{"session": []}]
SEARCHED = ("DiagnosticReport", "Observation", "Media", "Consent", "Device", "Task")
READ = ("DiagnosticReport", "Patient", "Bundle")


def description(cookie: str) -> Node:
    """The document. `cookie` is the session cookie's name."""
    paths: Node = {f"/fhir/{kind}/{{id}}": {"get": _fhir(f"One {kind}", kind, _ID)} for kind in READ}
    for kind in SEARCHED:
        paths[f"/fhir/{kind}"] = {"get": _fhir(f"{kind} of a patient's newest exams", "Bundle", _PATIENT)}
    for path, text in (("/export.csv", "Exams, without names"), ("/quality.csv", "Performance of the models")):
        paths[path] = {"get": _page(text, "text/csv", {"type": "string"})}
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    paths["/waiting.json"] = {"get": _page("What waits to be read, by triage", "application/json", counts)}
    paths["/metrics"] = {
        "get": {
            "summary": "Prometheus metrics, for administrators or by `hub.metrics_token`",
            "responses": {
                "200": _content("Metrics", "text/plain", {"type": "string"}),
                "401": {"description": "Not allowed"},
            },
        }
    }
    health = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    paths["/healthz"] = {
        "get": {
            "summary": "Whether the hub and its database answer",
            "responses": {
                "200": _content("They do", "application/json", health),
                "503": _content(
                    "The database does not, or what devices send cannot be stored", "application/json", health
                ),
            },
        }
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": "Aidpost hub", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": cookie}}},
    }


def _fhir(summary: str, kind: str, parameter: Node) -> Node:
    answer = _resource(kind)
    outcome = _resource("OperationOutcome")
    responses = {"200": _content(summary, _FHIR, answer), "401": _content("Log in first", _FHIR, outcome)}
    if parameter["in"] == "path":
        responses["404"] = _content("There is none, or not for this user", _FHIR, outcome)
    else:
        responses["400"] = _content("No patient is named", _FHIR, outcome)
    return {"summary": summary, "security": _LOGIN, "parameters": [parameter], "responses": responses}


def _resource(kind: str) -> Node:
    return {
        "type": "object",
        "required": ["resourceType"],
        "properties": {"resourceType": {"type": "string", "enum": [kind]}},
    }


def _page(summary: str, media: str, answer: Node) -> Node:
    return {
        "summary": summary,
        "security": _LOGIN,
        "responses": {
            "200": _content(summary, media, answer),
            "303": {"description": "To the login"},
            "403": {"description": "Not for this role"},
        },
    }


def _content(text: str, media: str, schema: Node) -> Node:
    return {"description": text, "content": {media: {"schema": schema}}}
