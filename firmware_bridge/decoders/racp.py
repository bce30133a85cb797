"""Record Access Control Point 2A52 (Glucose Service 1.0, GATT Specification Supplement): asking for stored records.

Records are asked for from the last stored sequence number plus one, and that number is stored only after the records
are, so that none is lost and none is taken twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.gatt import Reader

REPORT, DELETE, ABORT, COUNT, COUNT_RESPONSE, RESPONSE = 1, 2, 3, 4, 5, 6
NULL, ALL, AT_MOST, AT_LEAST, RANGE, FIRST, LAST = range(7)
SEQUENCE_NUMBER = TIME_OFFSET = 1
"""What records are chosen by: of a meter their sequence number, of a CGM sensor minutes since the session's start."""
SUCCESS, NO_RECORDS = 1, 6
CODES = {
    1: "success",
    2: "operation not supported",
    3: "invalid operator",
    4: "operator not supported",
    5: "invalid operand",
    6: "no records found",
    7: "abort unsuccessful",
    8: "procedure not completed",
    9: "operand not supported",
    10: "server busy",
}

REPORT_ALL = bytes([REPORT, ALL])
REPORT_FIRST = bytes([REPORT, FIRST])
REPORT_LAST = bytes([REPORT, LAST])
COUNT_ALL = bytes([COUNT, ALL])
ABORT_PROCEDURE = bytes([ABORT, NULL])


def report_from(number: int) -> bytes:
    """The command for all records from that sequence number, or time offset, on."""
    return bytes([REPORT, AT_LEAST, SEQUENCE_NUMBER]) + number.to_bytes(2, "little")


def count_from(number: int) -> bytes:
    """The command for how many records there are from that sequence number, or time offset, on."""
    return bytes([COUNT, AT_LEAST, SEQUENCE_NUMBER]) + number.to_bytes(2, "little")


def report_range(first: int, last: int) -> bytes:
    """The command for the records from `first` to `last`, both included."""
    return bytes([REPORT, RANGE, SEQUENCE_NUMBER]) + first.to_bytes(2, "little") + last.to_bytes(2, "little")


@dataclass(frozen=True)
class RacpResponse:
    """An indication of the control point: the number of records, or how the procedure `request` ended."""

    count: int | None = None
    request: int | None = None
    code: int | None = None

    @property
    def text(self) -> str:
        """The response code in words."""
        return "" if self.code is None else CODES.get(self.code, f"reserved {self.code}")


def decode_racp(data: bytes) -> RacpResponse:
    """2A52, as indicated by the device.

    Raises
    ------
    DecodeError
        It is no response: another operation, another operator than null, or a number of 3 bytes.
    """
    reader = Reader("record access control point 2A52", data)
    operation, operator = reader.u8("operation"), reader.u8("operator")
    if operator != NULL or operation not in (COUNT_RESPONSE, RESPONSE):
        raise DecodeError(reader.what, f"operation {operation} with operator {operator} is no response")
    if operation == RESPONSE:
        return RacpResponse(request=reader.u8("request"), code=reader.u8("response code"))
    if reader.left not in (1, 2, 4):  # the service says 2; 1 and 4 are seen
        raise DecodeError(reader.what, f"a number of records has {reader.left} bytes, not 1, 2 or 4")
    return RacpResponse(count=reader.unsigned(reader.left, "number of records"))
