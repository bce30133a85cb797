"""Every error that Aidpost raises on purpose, in one tree.

An operator's error says what was being done, to which thing, why it failed and what to do about it.

AidpostError
├── UsageError                  arguments that make no sense together                                       exit 2
│   └── ConfigurationError      a configuration file with a wrong key, type or value                        exit 2
├── InvalidRecordError          a value breaks the rules of `aidpost.records`                               exit 1
├── UnreadableInputError        a file or capture is empty, cut off, damaged or not what it claims          exit 3
│   └── UnsupportedFormatError  readable, but in a form nobody here reads, or its extra is not installed    exit 3
├── DeviceError                 a sensor, camera or port                                                    exit 1
│   ├── DeviceNotFoundError     no such port, address or board
│   ├── DeviceBusyError         another program, or another part of this one, holds it
│   ├── DeviceTimeoutError      it is there and says nothing within its deadline
│   └── DeviceLostError         it was there and went away
├── ModelError                  a model folder or its answer                                                exit 1
│   ├── ModelIntegrityError     hash, card or golden recordings do not match: the model is not used
│   ├── ModelRefusedError       its permitted use excludes this site
│   └── InferenceTimeoutError   the worker did not answer within its deadline and was replaced
├── StoreError                  the durable store                                                           exit 1
│   ├── StorageFullError        no room for a new capture; nothing stored was touched
│   ├── StoreDamagedError       the integrity check failed; what was damaged is quarantined
│   ├── StoreLockedError        another process owns the sender or the devices
│   ├── KeyUnavailableError     no device key, or the wrong one: sealed records cannot be opened
│   └── SchemaError             the store was made by a newer version
├── SyncError                   device, broker and hub                                                      exit 1
│   ├── BrokerError             the broker cannot be reached, or refuses
│   ├── EnrolmentError          the hub gives this device no certificate
│   ├── EnvelopeError           a message that is malformed, forged or foreign
│   └── HubRefusedError         the hub refused a record; it is in the dead letters with the reason
├── UpdateError                 a release or model that cannot be installed                               exit 1
│   └── UpdateRefusedError      not signed by whom it must be, older than what was seen, or out of date
└── NotPossibleError            this board, system or build cannot do it                                    exit 4
"""

from __future__ import annotations

from typing import ClassVar


class AidpostError(Exception):
    """Base of all; carries what an operator needs.

    Parameters
    ----------
    operation
        What was being done, as a phrase: "reading the photograph".
    target
        The thing it was done to: a path, a port, a record id. Never a patient's name.
    cause
        Why it failed.
    remedy
        What a person can do now; empty when nothing can be done.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, *, operation: str, target: str, cause: str, remedy: str = "") -> None:
        self.operation, self.target, self.cause, self.remedy = operation, target, cause, remedy
        super().__init__(operation, target, cause, remedy)

    def __str__(self) -> str:
        text = f"{self.operation}: {self.target}: {self.cause}"
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive the default pickling, and workers send errors over pipes
        return _rebuild, (type(self), self.operation, self.target, self.cause, self.remedy)

    def to_dict(self) -> dict[str, str]:
        """The `error` object of the JSON output: code, message, remedy."""
        return {
            "code": self.code,
            "message": f"{self.operation}: {self.target}: {self.cause}",
            "remedy": self.remedy,
        }


def _rebuild(kind: type[AidpostError], operation: str, target: str, cause: str, remedy: str) -> AidpostError:
    return kind(operation=operation, target=target, cause=cause, remedy=remedy)


class UsageError(AidpostError):
    """Arguments that make no sense together: two sources for one eye, a lead that the recording lacks."""

    code = "usage"
    exit_code = 2


class ConfigurationError(UsageError):
    """A configuration file with an unknown key, a wrong type or a value out of range."""

    code = "configuration"


class InvalidRecordError(AidpostError, ValueError):
    """A value that breaks a rule of `aidpost.records`: a span outside the recording, a negative rate."""

    code = "invalid-record"


class UnreadableInputError(AidpostError):
    """A file or capture that is empty, cut off, damaged or not what its name says."""

    code = "unreadable"
    exit_code = 3


class UnsupportedFormatError(UnreadableInputError):
    """A form that nobody here reads, or whose optional dependency is not installed; the remedy names the extra."""

    code = "unsupported-format"


class DeviceError(AidpostError):
    """A sensor, camera or port failed in a way that none of the classes below names."""

    code = "device"


class DeviceNotFoundError(DeviceError):
    """No such port, address or board: unplugged, out of range, or the name is wrong."""

    code = "device-not-found"


class DeviceBusyError(DeviceError):
    """The port is held by another program, or by another exam."""

    code = "device-busy"


class DeviceTimeoutError(DeviceError):
    """The device is there and sent nothing within its deadline."""

    code = "device-timeout"


class DeviceLostError(DeviceError):
    """The device was sending and went away: cable pulled, battery empty."""

    code = "device-lost"


class ModelError(AidpostError):
    """A model cannot be loaded or gave no answer."""

    code = "model"


class ModelIntegrityError(ModelError):
    """The model's file, card or golden recordings do not match; it is not used."""

    code = "model-integrity"


class ModelRefusedError(ModelError):
    """The card's permitted use excludes this site's profile, and nobody accepted it in the configuration."""

    code = "model-refused"


class InferenceTimeoutError(ModelError):
    """The inference worker missed its deadline; it was killed and a new one started."""

    code = "inference-timeout"


class StoreError(AidpostError):
    """The durable store cannot do what was asked; nothing that it accepted is lost."""

    code = "store"


class StorageFullError(StoreError):
    """There is no room for a new capture. It was refused before anything stored was touched."""

    code = "storage-full"


class StoreDamagedError(StoreError):
    """The integrity check failed: damaged records are quarantined, the rest is served."""

    code = "store-damaged"


class StoreLockedError(StoreError):
    """Another process owns the sender or the devices of this state directory."""

    code = "store-locked"


class KeyUnavailableError(StoreError):
    """The device key is missing or wrong, so sealed records cannot be opened."""

    code = "key-unavailable"


class SchemaError(StoreError):
    """The store was written by a newer version than this one can read."""

    code = "schema"


class SyncError(AidpostError):
    """Something between device, broker and hub."""

    code = "sync"


class BrokerError(SyncError):
    """The broker cannot be reached, refuses the connection, or speaks something else than MQTT."""

    code = "broker"


class EnrolmentError(SyncError):
    """The device cannot be enrolled at the hub, or its certificate not renewed."""

    code = "enrolment"


class EnvelopeError(SyncError):
    """A message that is malformed, forged, or from a device that is not enrolled."""

    code = "envelope"


class HubRefusedError(SyncError):
    """The hub refused a record. It is kept in the dead letters, with the reason."""

    code = "hub-refused"


class UpdateError(AidpostError):
    """A release or model cannot be got, installed or proven; what served before serves."""

    code = "update"


class UpdateRefusedError(UpdateError):
    """An update that is not signed by whom it must be, older than what this device has seen, or out of date."""

    code = "update-refused"


class NotPossibleError(AidpostError):
    """This board, operating system or build cannot do it: no camera stack, no kernel module, a missing extension."""

    code = "not-possible"
    exit_code = 4
