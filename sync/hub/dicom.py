"""What each exam recorded, to a PACS: by C-STORE (`dicom://TITLE@host:port`) or DICOMweb's STOW-RS (`https://…`).

An object has the same UID however often it is sent (PS3.5 B.2), and a PACS that has it already answers so, which counts
as stored. What was stored is noted with the object, so that a review sends nothing again.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, func, insert, select

from aidpost.errors import AidpostError, ConfigurationError
from aidpost.kernels import codec
from aidpost.records import (
    BlobRef,
    ConsentPurpose,
    EcgRecording,
    EcgResult,
    Exam,
    ExamReport,
    FundusPhoto,
    FundusResult,
    Origin,
    Patient,
)
from aidpost.sync.hub import audit, consents, exports, patients, schema
from aidpost.sync.hub._dicom_wire import CStore, Refused, StowRs, connection_of
from aidpost.sync.hub._rows import clean
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms


def stored(connection: Connection, condition: ColumnElement[bool]) -> int:
    """How many recordings a PACS has of those that meet a condition on `dicom_objects`."""
    query = select(func.count()).where(condition, schema.dicom_objects.c.fault == "")
    return int(connection.execute(query).scalar_one())


class Writer(Protocol):
    """Writes one DICOM object. The hub knows no file formats: who composes it brings the device's writers."""

    def __call__(
        self, recording: EcgRecording | FundusPhoto, path: Path, patient: Patient, exam: Exam, plain: bool
    ) -> None: ...


class DicomPush:
    """Sends one exam's recordings. `name` is its target in `exports`.

    Raises
    ------
    ConfigurationError
        `hub.dicom_url` is set, and the packages that it needs are not installed.
    """

    name = exports.DICOM

    def __init__(self, config: HubConfig, database: Database, files: BlobFiles, write: Writer) -> None:
        self._config, self._database, self._files, self._write = config, database, files, write
        try:
            import pydicom  # noqa: F401
            import pynetdicom  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                operation="preparing for a PACS",
                target="hub.dicom_url",
                cause=str(error),
                remedy="Install it with: pip install 'aidpost[dicom]'",
            ) from None

    def send(self, exam: uuid.UUID) -> None:
        """Sends what is here and was not stored before: nothing of an exam that is gone, withdrawn or not live.

        Raises
        ------
        OSError, http.client.HTTPException, ValueError
            The PACS did not take all of it; what it took is noted.
        """
        with self._database.read() as connection:
            report = exports.report_of(connection, exam)
            if report is None or patients.withdrawal(connection, exam) is not None:
                return
            if consents.refuses(connection, report.patient.id, ConsentPurpose.SHARING):
                return
            table = schema.dicom_objects
            known = set(connection.execute(select(table.c.id).where(table.c.exam == exam)).scalars())
        if report.origin is not Origin.LIVE and not self._config.dicom_simulated:
            return
        made: tuple[EcgResult | FundusResult, ...] = (*report.ecg, *report.fundus)
        here = (result for result in made if result.body and self._files.is_complete(result.body.sha256))
        waiting = [result for result in here if result.id not in known]
        if not waiting:
            return
        with tempfile.TemporaryDirectory(prefix="aidpost-dicom-") as folder, connection_of(self._config) as pacs:
            refused = [text for result in waiting if (text := self._send(report, result, pacs, Path(folder)))]
        if refused:
            raise OSError("; ".join(refused))

    def _send(self, report: ExamReport, result: EcgResult | FundusResult, pacs: CStore | StowRs, folder: Path) -> str:
        """Sends and notes one object; why the PACS refused it, or nothing."""
        path = folder / f"{result.id}.dcm"
        fault = ""
        try:
            recording = self._recording(result)
            self._write(recording, path, report.patient, report.exam, False)
            if not pacs.takes(path):
                self._write(recording, path, report.patient, report.exam, True)
            pacs.store(path)
        except AidpostError as error:
            fault = error.cause  # DICOM has no form for it, now or later
        except Refused as error:
            return f"{result.id}: {error}"
        finally:
            path.unlink(missing_ok=True)
        self._note(report, result.id, fault)
        return ""

    def _note(self, report: ExamReport, number: uuid.UUID, fault: str) -> None:
        row = {"id": number, "exam": report.exam.id, "patient": report.patient.id, "at_ms": now_ms()}
        with self._database.write() as connection:
            connection.execute(insert(schema.dicom_objects).values(**row, fault=clean(fault, 500)))
            action = "dicom-impossible" if fault else "dicom-stored"
            audit.append(connection, "hub", action, str(report.exam.id), f"{number} {fault}".rstrip())

    def _recording(self, result: EcgResult | FundusResult) -> EcgRecording | FundusPhoto:
        assert isinstance(result.body, BlobRef)
        data = self._files.path(result.body.sha256).read_bytes()
        if isinstance(result, FundusResult):
            return FundusPhoto(
                id=result.id, encoded=data, media_type=result.body.media_type, eye=result.eye, at=result.at,
                origin=result.origin, camera=result.camera,
            )  # fmt: skip
        return EcgRecording(
            id=result.id, samples=codec.decode(data), fs_hz=result.fs_hz, leads=result.leads, lsb_mv=result.lsb_mv,
            baseline=result.baseline, at=result.at, origin=result.origin, device=result.device,
            missing=result.missing, lead_off=result.lead_off,
        )  # fmt: skip
