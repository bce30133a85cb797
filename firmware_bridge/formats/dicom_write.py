"""Writing DICOM: ECG waveform objects (PS3.3 A.34) and Ophthalmic Photography 8 Bit images (PS3.3 A.41), with pydicom.

An ECG goes out as 12-Lead ECG where it has the twelve leads and at most 16,384 samples, else as General ECG; below
200 Hz, which those two do not allow, as Ambulatory ECG; with counts beyond 16 bits as General 32-bit ECG. A JPEG goes
into the photograph byte for byte; one that EXIF says to turn, and a PNG, as plain pixels, since DICOM's readers know no
EXIF.

One object has one identity however often it is written: the record's UUID under 2.25 (PS3.5 B.2), and, given the exam,
the exam's as its study.
"""

from __future__ import annotations

import struct
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aidpost import __version__
from aidpost.errors import UsageError
from aidpost.firmware_bridge.formats.edf import missing_extra
from aidpost.firmware_bridge.formats.photograph import inspect_photo
from aidpost.firmware_bridge.formats.write import INT16, cannot_hold, invalid_of, local_time, remarks_of, write_whole
from aidpost.records import Device, EcgRecording, Exam, Eye, FundusPhoto, Origin, Patient, Sex, Timestamp

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pydicom.uid import UID

TWELVE_LEAD, GENERAL = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.9.1.2"
AMBULATORY, GENERAL_32 = "1.2.840.10008.5.1.4.1.1.9.1.3", "1.2.840.10008.5.1.4.1.1.9.1.4"
OPHTHALMIC_8 = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
EXPLICIT_LE, JPEG_BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
MAX_12_LEAD_SAMPLES = 16384
_MDC = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{n}": n + 2 for n in range(1, 7)}
_SEX = {Sex.FEMALE: "F", Sex.MALE: "M", Sex.OTHER: "O"}


def write_dicom(
    recording: EcgRecording | FundusPhoto, path: Path, patient: Patient, exam: Exam, plain: bool = False
) -> None:
    """Write what an exam recorded: `write_dicom_ecg` or `write_dicom_photo`, as parts of one study."""
    if isinstance(recording, EcgRecording):
        write_dicom_ecg(recording, path, patient, exam)
    else:
        write_dicom_photo(recording, path, patient, exam, plain=plain)


def write_dicom_ecg(
    recording: EcgRecording, path: Path, patient: Patient | None = None, exam: Exam | None = None
) -> None:
    """Write the recording; missing samples and those of an electrode without contact are the padding value.

    Parameters
    ----------
    exam
        What it is part of: DICOM's study.

    Raises
    ------
    UnsupportedFormatError
        The rate is outside of what DICOM allows, a count is the padding value, or pydicom is not installed.
    StoreError
        The file cannot be written.
    """
    Dataset, Sequence = _pydicom(path)
    kind, bits = _ecg_class(recording, path)
    data = _file(recording, kind, recording.device, patient, exam)
    data.Modality = "ECG"
    data.SeriesNumber = data.InstanceNumber = 1
    data.AcquisitionContextSequence = Sequence()
    padding = -(1 << (bits - 1))
    counts = np.where(invalid_of(recording), padding, recording.samples)
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = counts.shape
    group.SamplingFrequency = _decimal(recording.fs_hz)
    group.ChannelDefinitionSequence = Sequence([_channel(recording, n, bits) for n in range(len(counts))])
    group.WaveformBitsAllocated = bits
    group.WaveformSampleInterpretation = "SS" if bits == 16 else "SL"
    form = f"<i{bits // 8}"
    group.add_new(0x5400100A, "OW", struct.pack("<h" if bits == 16 else "<i", padding))  # WaveformPaddingValue
    group.add_new(0x54001010, "OW", np.ascontiguousarray(counts.T).astype(form).tobytes())  # WaveformData
    data.WaveformSequence = Sequence([group])
    _save(data, path)


def _pydicom(path: Path) -> tuple[Any, Any]:
    try:
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence
    except ImportError:
        raise missing_extra(path, "pydicom") from None
    return Dataset, Sequence


def _ecg_class(recording: EcgRecording, path: Path) -> tuple[str, int]:
    """The SOP class and the bits of a sample."""
    valid = recording.samples[~invalid_of(recording)]
    wide = bool(len(valid)) and not (INT16[0] < valid.min() and valid.max() <= INT16[1])
    if wide and valid.min() == -(1 << 31):
        raise cannot_hold(path, "DICOM", "a count is the number that means no sample", "Write EDF+.")
    if not 50 <= recording.fs_hz <= 1000 or (wide and recording.fs_hz < 200):
        low = 200 if wide else 50
        cause = f"its rate of {recording.fs_hz:g} Hz is not from {low} to 1000 Hz, which DICOM allows for this ECG"
        raise cannot_hold(path, "DICOM", cause, "Write WFDB or EDF+.")
    if wide:
        return GENERAL_32, 32
    if recording.fs_hz < 200:
        return AMBULATORY, 16
    twelve = set(recording.leads) == set(_MDC) and recording.samples.shape[1] <= MAX_12_LEAD_SAMPLES
    return (TWELVE_LEAD if twelve else GENERAL), 16


def _channel(recording: EcgRecording, lead: int, bits: int) -> Any:
    Dataset, Sequence = _pydicom(Path())
    name, step_uv = recording.leads[lead], recording.lsb_mv[lead] * 1000
    channel = Dataset()
    channel.WaveformChannelNumber = lead + 1
    channel.ChannelLabel = name[:16]
    standard = name in _MDC
    channel.ChannelSourceSequence = Sequence(
        [_code(f"2:{_MDC[name]}", "MDC", f"Lead {name}") if standard else _code("LEAD", "99AIDPOST", name)]
    )
    channel.ChannelSensitivity = _decimal(step_uv)
    channel.ChannelSensitivityUnitsSequence = Sequence([_code("uV", "UCUM", "microvolt")])
    channel.ChannelSensitivityCorrectionFactor = 1
    # PS3.3 C.10.9.1.4.4: what a count of 0 stands for
    channel.ChannelBaseline = _decimal(-recording.baseline[lead] * step_uv)
    channel.ChannelSampleSkew = 0
    channel.WaveformBitsStored = bits
    return channel


def _code(value: str, scheme: str, meaning: str) -> Any:
    Dataset, _ = _pydicom(Path())
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning[:64]
    return code


def _decimal(value: float) -> str:
    """A Decimal String: at most sixteen characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


def _file(
    record: EcgRecording | FundusPhoto, kind: str, made_by: Device, patient: Patient | None, exam: Exam | None
) -> FileDataset:
    """What every object has: patient, study, series, equipment and SOP common modules."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    at, origin = record.at, record.origin
    meta = FileMetaDataset()
    # PS3.5 B.2: a UUID is a UID under 2.25, so that the record and its file have one identity
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(kind), _uid(record.id)
    meta.TransferSyntaxUID = UID(EXPLICIT_LE)
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = _uid(exam.id if exam else uuid.uuid5(record.id, "study"))
    data.SeriesInstanceUID = _uid(uuid.uuid5(record.id, "series"))
    # all objects of a study say the same of it
    data.StudyDate, data.StudyTime = _day_and_time(exam.started if exam else at)
    data.ContentDate, data.ContentTime = _day_and_time(at)
    data.AcquisitionDateTime = f"{data.ContentDate}{data.ContentTime}{local_time(at):%z}"
    data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
    if exam is not None:
        data.InstitutionName = exam.clinic.name[:64]
    data.SeriesDescription = ", ".join(remarks_of(origin, at))
    if origin is Origin.SIMULATED:
        data.PatientComments = "simulated: no patient"
    born = (patient.birth_date or "") if patient else ""
    data.PatientName = patient.name.replace("^", " ") if patient else ""
    data.PatientID = str(patient.id) if patient else ""
    data.PatientBirthDate = born.replace("-", "") if len(born) == 10 else ""
    data.PatientSex = _SEX.get(patient.sex, "") if patient else ""
    data.Manufacturer = made_by.manufacturer[:64]
    data.ManufacturerModelName = (made_by.model or made_by.name)[:64]
    data.DeviceSerialNumber = made_by.serial[:64]
    data.SoftwareVersions = f"Aidpost {__version__}"
    return data


def _uid(number: uuid.UUID) -> UID:
    from pydicom.uid import UID

    return UID(f"2.25.{number.int}")


def _day_and_time(at: Timestamp) -> tuple[str, str]:
    moment = local_time(at)
    return f"{moment:%Y%m%d}", f"{moment:%H%M%S}.{moment.microsecond // 1000:03d}"


def _save(data: FileDataset, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns of a value that breaks its type: ours must not
        write_whole(path, lambda part: data.save_as(part, enforce_file_format=True))


def write_dicom_photo(
    photo: FundusPhoto, path: Path, patient: Patient | None = None, exam: Exam | None = None, *, plain: bool = False
) -> None:
    """Write the photograph as an Ophthalmic Photography 8 Bit image.

    Parameters
    ----------
    exam
        What it is part of: DICOM's study.
    plain
        As plain pixels, for a reader that takes no JPEG.

    Raises
    ------
    UsageError
        Which eye it shows is not known: DICOM wants it, and it is never guessed.
    UnsupportedFormatError
        pydicom is not installed.
    StoreError
        The file cannot be written.
    """
    _, Sequence = _pydicom(path)
    if photo.eye is None:
        raise UsageError(
            operation="writing DICOM",
            target=str(path),
            cause="which eye the photograph shows is not known",
            remedy="Say left or right.",
        )
    data = _file(photo, OPHTHALMIC_8, photo.camera, patient, exam)
    data.Modality, data.SeriesNumber, data.InstanceNumber = "OP", 1, 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR"]
    data.ImageLaterality = "L" if photo.eye is Eye.LEFT else "R"
    data.BurnedInAnnotation = "NO"
    data.SynchronizationTrigger, data.AcquisitionTimeSynchronized = "NO TRIGGER", "Y" if photo.at.synced else "N"
    data.SynchronizationFrameOfReferenceUID = f"2.25.{photo.id.int}"
    data.NumberOfFrames, data.FrameIncrementPointer = 1, 0x00181063  # Frame Time, for the one frame
    data.FrameTime = 0
    data.AnatomicRegionSequence = Sequence([_code("81745001", "SCT", "Eye")])
    data.AcquisitionDeviceTypeCodeSequence = Sequence([_code("409898007", "SCT", "Fundus Camera")])
    for name in (
        *("PatientEyeMovementCommanded", "EmmetropicMagnification", "IntraOcularPressure", "HorizontalFieldOfView"),
        *("PupilDilated", "DetectorType"),
    ):
        setattr(data, name, None)
    for name in (
        *("RefractiveStateSequence", "IlluminationTypeCodeSequence", "LightPathFilterTypeStackCodeSequence"),
        *("ImagePathFilterTypeStackCodeSequence", "LensesCodeSequence"),
    ):
        setattr(data, name, Sequence())
    _put_pixels(data, photo, plain)
    _save(data, path)


def _put_pixels(data: FileDataset, photo: FundusPhoto, plain: bool) -> None:
    import cv2

    info = inspect_photo(photo.encoded, source=photo.source)
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    jpeg = photo.media_type == "image/jpeg"
    raw = jpeg and not plain and info.orientation == 1 and _baseline_channels(photo.encoded)
    if raw:
        from pydicom.encaps import encapsulate
        from pydicom.uid import UID

        data.Rows, data.Columns, data.SamplesPerPixel = info.height, info.width, raw
        data.PhotometricInterpretation = "YBR_FULL_422" if raw == 3 else "MONOCHROME2"
        data.file_meta.TransferSyntaxUID = UID(JPEG_BASELINE)
        data.add_new(0x7FE00010, "OB", encapsulate([photo.encoded]))  # PixelData
        data["PixelData"].is_undefined_length = True
        size = info.height * info.width * raw
    else:
        image = cv2.imdecode(np.frombuffer(photo.encoded, np.uint8), cv2.IMREAD_COLOR)  # turned as EXIF says
        if image is None:
            raise cannot_hold(Path(photo.source), "DICOM", "the photograph cannot be decoded", "Take it again.")
        pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        data.Rows, data.Columns, data.SamplesPerPixel = pixels.shape[0], pixels.shape[1], 3
        data.PhotometricInterpretation = "RGB"
        size = pixels.nbytes
        data.add_new(0x7FE00010, "OB", pixels.tobytes() + bytes(size % 2))
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    else:
        data.PresentationLUTShape, data.ImageType = "IDENTITY", ["ORIGINAL", "PRIMARY"]
    data.LossyImageCompression = "01" if jpeg else "00"
    if jpeg:
        data.LossyImageCompressionRatio = _decimal(round(size / len(photo.encoded), 3))
        data.LossyImageCompressionMethod = "ISO_10918_1"


def _baseline_channels(jpeg: bytes) -> int:
    """1 or 3 components of a baseline JPEG (SOF0); 0 for another kind, which DICOM's baseline syntax cannot carry."""
    position = 2
    while position + 9 < len(jpeg) and jpeg[position] == 0xFF:
        marker, length = jpeg[position + 1], int.from_bytes(jpeg[position + 2 : position + 4], "big")
        if marker == 0xFF:
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = jpeg[position + 9]
            return components if marker == 0xC0 and components in (1, 3) else 0
        position += 2 + length
    return 0
