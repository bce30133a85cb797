"""Each exam to another FHIR server, as transactions that may be repeated.

Every entry is a conditional update by the resource's own identifier: the first time it creates, after that it changes
the same resource, on servers that take no ids of others. Traces go in a transaction of their own, so that their size
does not hold up the results.
"""

from __future__ import annotations

import http.client
import re
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from aidpost.errors import AidpostError
from aidpost.kernels import codec
from aidpost.records import ConsentPurpose, ExamReport, Origin
from aidpost.sync.hub import _fhir_records, consents, exports, fhir, patients, referrals, reviews
from aidpost.sync.hub._post import post
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database

Resource = dict[str, Any]
_REFERENCE = re.compile(r"[A-Z][A-Za-z]+/([0-9a-f-]{36})")


def transaction(resources: Sequence[Resource]) -> Resource:
    """A transaction of conditional updates. References among the resources are by `urn:uuid`; those to others by
    their identifier."""
    here = {resource["id"] for resource in resources}
    entries = []
    for resource in resources:
        (identifier, *_) = resource["identifier"]
        where = f"identifier={quote(identifier['system'] + '|' + identifier['value'], safe='')}"
        body = {name: _relinked(value, here) for name, value in resource.items() if name != "id"}
        entries.append(
            {
                "fullUrl": f"urn:uuid:{resource['id']}",
                "resource": body,
                "request": {"method": "PUT", "url": f"{resource['resourceType']}?{where}"},
            }
        )
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _relinked(value: Any, here: set[str]) -> Any:
    if isinstance(value, list):
        return [_relinked(item, here) for item in value]
    if not isinstance(value, dict):
        return value
    made = {name: _relinked(item, here) for name, item in value.items()}
    if isinstance(link := value.get("reference"), str) and (found := _REFERENCE.fullmatch(link)):
        number, kind = found[1], link.split("/")[0]
        query = quote(f"{_fhir_records.IDENTIFIERS}|urn:uuid:{number}", safe="")
        made["reference"] = f"urn:uuid:{number}" if number in here else f"{kind}?identifier={query}"
    return made


class FhirPush:
    """Sends one exam. `name` is its target in `exports`."""

    name = exports.FHIR

    def __init__(self, config: HubConfig, database: Database, files: BlobFiles) -> None:
        self._config, self._database, self._files = config, database, files

    def send(self, exam: uuid.UUID) -> None:
        """Sends the exam as it is here now, or nothing where it is gone or not live.

        Raises
        ------
        OSError, http.client.HTTPException, ValueError
            The server did not take all of it.
        """
        for bundle in self.bundles(exam):
            self._post(bundle)

    def bundles(self, exam: uuid.UUID) -> list[Resource]:
        """The transactions of one exam: results, then each trace that is here."""
        with self._database.read() as connection:
            report = exports.report_of(connection, exam)
            if report is None:
                return []
            if report.origin is not Origin.LIVE and not self._config.fhir_simulated:
                return []
            if consents.refuses(connection, report.patient.id, ConsentPurpose.SHARING):
                return []
            signed = reviews.settled(connection, report.id)
            roots = referrals.roots(connection, exam)
            sent = [
                _fhir_records.task(referral, roots[row.id]) for row, referral in referrals.of_exam(connection, exam)
            ]
            wrong = patients.withdrawal(connection, exam) is not None
        if wrong:
            return [transaction(fhir.withdrawn(report))]
        base = self._config.public_url.rstrip("/") + "/"
        return [transaction([*fhir.resources(report, signed, base), *sent]), *self._traces(report)]

    def _traces(self, report: ExamReport) -> list[Resource]:
        made = []
        for ecg in report.ecg:
            if ecg.body is None or not self._files.is_complete(ecg.body.sha256):
                continue
            try:
                samples = codec.decode(self._files.path(ecg.body.sha256).read_bytes())
            except AidpostError:
                continue  # the pages say that it is damaged; the results were sent
            made.append(transaction([_fhir_records.trace(report, ecg, samples)]))
        return made

    def _post(self, bundle: Resource) -> None:
        headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
        if self._config.fhir_token:
            headers["Authorization"] = f"Bearer {self._config.fhir_token}"
        answer = msgspec.json.decode(post(self._config.fhir_url, msgspec.json.encode(bundle), headers, 60.0))
        entries = answer.get("entry", []) if isinstance(answer, dict) else []
        statuses = [str(entry.get("response", {}).get("status", "")) for entry in entries]
        if len(statuses) != len(bundle["entry"]) or not all(status.startswith("2") for status in statuses):
            raise http.client.HTTPException(f"of {len(bundle['entry'])} entries it took {statuses}"[:400])
