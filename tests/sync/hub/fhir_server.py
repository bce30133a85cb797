"""As much of a FHIR server as a hub's push needs: transactions of conditional updates, all or nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FhirServer:
    """Resources by type and identifier. `answers` are statuses to give instead, first to last; a 0 takes the
    transaction and loses the answer, as a network does."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], dict[str, Any]] = {}
        self.transactions: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.authorization = ""

    def take(self, bundle: dict[str, Any]) -> dict[str, Any]:
        assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
        self.transactions.append(bundle)
        placed: dict[str, str] = {}
        answers = []
        for entry in bundle["entry"]:
            assert entry["request"]["method"] == "PUT"
            url = urlsplit(entry["request"]["url"])
            (identifier,) = parse_qs(url.query)["identifier"]
            key = (url.path, identifier)
            old = self.resources.get(key)
            number = old["id"] if old else str(uuid.uuid4())
            placed[entry["fullUrl"]] = f"{url.path}/{number}"
            self.resources[key] = entry["resource"] | {"id": number}
            answers.append({"response": {"status": "200 OK" if old else "201 Created"}})
        for url_, link in _references([entry["resource"] for entry in bundle["entry"]]):
            known = url_ in placed or self._found(url_)
            assert known, f"{link} refers to nothing"
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [resource for (name, _), resource in self.resources.items() if name == kind]

    def _found(self, reference: str) -> bool:
        url = urlsplit(reference)
        return (url.path, parse_qs(url.query).get("identifier", [""])[0]) in self.resources


def _references(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"], value
        for item in value.values():
            yield from _references(item)


@contextmanager
def serving(store: FhirServer) -> Iterator[str]:
    """The base URL while the server runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            store.authorization = self.headers.get("authorization", "")
            status = store.answers.pop(0) if store.answers else 200
            answer = store.take(body) if status in (0, 200) else {"resourceType": "OperationOutcome", "issue": []}
            if status == 0:
                return  # the connection closes without a word
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/r4"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
