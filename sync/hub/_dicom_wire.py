"""The two ways to a PACS: an association with C-STORE (PS3.4 B), and DICOMweb's STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from aidpost.sync.hub._post import exchange
from aidpost.sync.hub.config import HubConfig

_CONNECT_S, _ANSWER_S = 20.0, 60.0
_DUPLICATE = 0x0111
_FAILED_SOP, _FAILURE_REASON, _SOP_INSTANCE = "00081198", "00081197", "00081155"

# what the hub's recordings are: 12-Lead, General, Ambulatory, General 32-bit ECG, Ophthalmic Photography 8 Bit
_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("9.1.1", "9.1.2", "9.1.3", "9.1.4", "77.1.5.1"))
_PLAIN, _JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


class Refused(Exception):
    """The PACS does not take this object, and may take the next."""


@contextmanager
def connection_of(config: HubConfig) -> Iterator[CStore | StowRs]:
    """The way that `hub.dicom_url` names, open.

    Raises
    ------
    OSError
        There is no connection, or the PACS refuses it.
    """
    url = urlsplit(config.dicom_url)
    if url.scheme.startswith("http"):
        yield StowRs(config.dicom_url, config.dicom_token)
        return
    from pynetdicom import AE, evt
    from pynetdicom.pdu import A_ASSOCIATE_RJ

    entity = AE(ae_title=config.dicom_title)
    entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = _CONNECT_S, _ANSWER_S, _ANSWER_S
    entity.connection_timeout = _CONNECT_S
    for kind in _CLASSES:
        entity.add_requested_context(kind, _PLAIN)
    entity.add_requested_context(_CLASSES[-1], _JPEG)
    host, port = url.hostname or "", url.port or 104
    # pynetdicom says nothing of why a connection fails, and leaves its socket open
    socket.create_connection((host, port), _CONNECT_S).close()
    tls = (_context(config), host) if url.scheme == "dicoms" else None
    heard: list[object] = []
    # where a PACS hangs up behind its refusal, `is_rejected` may be False: pynetdicom looks first if it is connected
    listening: list[Any] = [(evt.EVT_PDU_RECV, lambda event: heard.append(event.pdu))]
    title = url.username or "ANY-SCP"
    association = entity.associate(host, port, ae_title=title, tls_args=tls, evt_handlers=listening)
    if not association.is_established:
        refused = any(isinstance(one, A_ASSOCIATE_RJ) for one in heard)
        why = "it refuses the association" if refused else "no association comes about"
        raise ConnectionError(f"{host}:{port}: {why}; check address, titles and TLS")
    try:
        yield CStore(association)
    finally:
        association.release()


def _context(config: HubConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.dicom_ca or None)
    if config.dicom_certificate:
        context.load_cert_chain(config.dicom_certificate, config.dicom_key or None)
    return context


class CStore:
    """An open association."""

    def __init__(self, association: Any) -> None:
        self._association = association
        self._accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])) for context in association.accepted_contexts
        }

    def takes(self, path: Path) -> bool:
        """Whether the PACS reads the file's syntax; of a JPEG it may not."""
        from pydicom.filereader import read_file_meta_info

        meta = read_file_meta_info(path)
        return (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)) in self._accepted

    def store(self, path: Path) -> None:
        """Stores one file; raises Refused where the PACS will not, OSError where it is gone."""
        if not self.takes(path):
            raise Refused("the PACS takes no objects of this class")
        from pydicom import dcmread

        answer = self._association.send_c_store(dcmread(path))
        if "Status" not in answer:
            raise TimeoutError("the PACS gave no answer")
        # PS3.4 B.2.3: 0 is success, 0xBxxx a success with a remark
        if answer.Status not in (0, _DUPLICATE) and answer.Status & 0xF000 != 0xB000:
            raise Refused(f"status {answer.Status:#06x} {answer.get('ErrorComment', '')}".rstrip())


class StowRs:
    """A DICOMweb server: one POST for each object, so that each has an answer of its own."""

    def __init__(self, base: str, token: str) -> None:
        self._url, self._token = f"{base.rstrip('/')}/studies", token

    def takes(self, _path: Path) -> bool:
        """A DICOMweb server takes what it stores in any syntax (PS3.18 10.5.2)."""
        return True

    def store(self, path: Path) -> None:
        """Stores one file; raises Refused where the PACS will not, and what `exchange` raises."""
        boundary = secrets.token_hex(16)
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                path.read_bytes(),
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        status, text = exchange(self._url, body, headers, _ANSWER_S)
        reasons = _failures(text)
        if reasons and all(reason == _DUPLICATE for reason in reasons):
            return
        if reasons or not 200 <= status < 300:
            said = ", ".join(f"{reason:#06x}" for reason in reasons) or text[:200].decode(errors="replace")
            raise Refused(f"it answered {status}: {said}")


def _failures(text: bytes) -> list[int]:
    """The reasons in a STOW-RS answer (PS3.18 I.2)."""
    try:
        answer = msgspec.json.decode(text)
        (data,) = answer if isinstance(answer, list) else [answer]
        failed = data.get(_FAILED_SOP, {}).get("Value", [])
        return [int(item.get(_FAILURE_REASON, {}).get("Value", [0])[0]) for item in failed]
    except (msgspec.DecodeError, AttributeError, IndexError, TypeError, ValueError):
        return []
