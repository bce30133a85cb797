"""A DICOM C-STORE provider: what a camera sends is on the disk before it is told so; what cannot be read is refused.

One file an object, named by its SOP instance: an object that is sent again, because its answer was lost on the way, is
the same file. The statuses are those of PS3.4 table B.2-1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aidpost.errors import AidpostError, DeviceBusyError, NotPossibleError, UnreadableInputError
from aidpost.firmware_bridge.formats.inputs import MAX_PHOTO_BYTES, read_photo_file
from aidpost.records import Timestamp

SUCCESS, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "Ophthalmic Photography 8 Bit",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
}
"""What is accepted at all; a sender that proposes anything else is told so before it sends."""
VERIFICATION = "1.2.840.10008.1.1"
SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Best first: a JPEG as the camera made it, then plain pixels."""
IDLE_S = 60.0
_UNKNOWN_TIME = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=False)


class Spool:
    """The folder into which objects go: `<SOP instance>.dcm`, and `given/` for those that have been handed on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.given = folder, folder / "given"
        self.given.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.glob("*.part"):  # a write that a power cut ended, which nobody was told had succeeded
            left.unlink()

    def put(self, instance: str, data: bytes) -> tuple[int, str]:
        """Keep an object; gives the status, and a comment where it is a failure."""
        path = self.folder / f"{instance}.dcm"
        if path.exists() or (self.given / path.name).exists():
            return SUCCESS, ""
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            read_photo_file(part, at=_UNKNOWN_TIME)
            part.rename(path)
            _sync(self.folder)
        except UnreadableInputError as error:
            part.unlink(missing_ok=True)
            return NOT_UNDERSTOOD, error.cause
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return OUT_OF_RESOURCES, f"cannot be kept: {error.strerror}"
        return SUCCESS, ""

    def waiting(self) -> list[Path]:
        """The objects that nobody has been given, oldest first."""
        found = [(path.stat().st_mtime_ns, path) for path in self.folder.glob("*.dcm")]
        return [path for _, path in sorted(found)]

    def hand_on(self, path: Path) -> None:
        """Note that an object has been given, so that it is not given again, also if it is sent again."""
        path.rename(self.given / path.name)
        _sync(self.folder)

    def prune(self, before_s: float) -> None:
        """Delete what was handed on and came before that time."""
        for path in self.given.glob("*.dcm"):
            if path.stat().st_mtime < before_s:
                path.unlink()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _answer(status: int, comment: str) -> Any:
    from pydicom import Dataset

    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment.encode("ascii", "replace").decode()[:64]  # VR LO
    return answer


def _store(event: Any, spool: Spool) -> Any:
    from pydicom.uid import UID

    request = event.request
    if request.DataSet.getbuffer().nbytes > MAX_PHOTO_BYTES:
        return _answer(OUT_OF_RESOURCES, "larger than 256 MB")
    instance = UID(str(request.AffectedSOPInstanceUID))
    try:
        data = event.dataset
        declared, classed = str(data.SOPInstanceUID), str(data.SOPClassUID)
    except Exception:  # noqa: BLE001 (what pydicom raises on damaged bytes is nearly anything)
        return _answer(NOT_UNDERSTOOD, "its DICOM data is damaged")
    if not instance.is_valid or declared != instance or classed != request.AffectedSOPClassUID:
        return _answer(MISMATCH, "the object is not the one announced")
    return _answer(*spool.put(instance, event.encoded_dataset()))


class Listener:
    """Accepts associations on `host`:`port` until `stop`.

    Parameters
    ----------
    spool
        Where objects go.
    title
        Our AE title.
    allowed
        AE titles that may send; empty: any.
    stored
        Told after each association that brought something.

    Raises
    ------
    NotPossibleError
        pynetdicom is not installed.
    DeviceBusyError
        The address cannot be listened at.
    """

    def __init__(
        self, host: str, port: int, spool: Spool, *, title: str, allowed: tuple[str, ...], stored: Callable[[], None]
    ) -> None:
        target = f"{host}:{port}"
        try:
            from pynetdicom import AE, evt
        except ImportError:
            remedy = "Install the extra: pip install 'aidpost[cameras]'."
            raise _error(NotPossibleError, target, "pynetdicom is not installed", remedy) from None
        entity = AE(ae_title=title)
        entity.maximum_associations = 4
        entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = IDLE_S
        entity.require_called_aet = True
        entity.require_calling_aet = list(allowed)
        entity.add_supported_context(VERIFICATION)
        for sop_class in CLASSES:
            entity.add_supported_context(sop_class, list(SYNTAXES))

        def store(event: Any) -> Any:
            answer = _store(event, spool)
            stored()
            return answer

        try:
            server = entity.start_server((host, port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
        except OSError as error:
            remedy = "Name a free port and an address of this device."
            raise _error(DeviceBusyError, target, f"it cannot be listened at ({error.strerror})", remedy) from error
        assert server is not None  # only one that blocks gives none
        self._server = server
        self.port = int(server.server_address[1])

    def stop(self) -> None:
        """Take no more, and let what is under way be cut off: it has not been answered, and comes again."""
        self._server.shutdown()


def _error(kind: type[AidpostError], target: str, cause: str, remedy: str) -> AidpostError:
    return kind(operation="listening for a DICOM camera", target=target, cause=cause, remedy=remedy)
