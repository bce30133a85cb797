"""Sends paper to a printer: a CUPS queue through `lp`, or a receipt printer's own device file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from aidpost.board.console.words import N_
from aidpost.errors import DeviceError

_DEADLINE_S = 20.0


def send(document: bytes, printer: str, *, raw: bool = False) -> None:
    """Send a document; what it becomes of there is the printer's.

    Parameters
    ----------
    printer
        `cups:QUEUE`, or a device file such as `/dev/usb/lp0`.
    raw
        The bytes are the printer's own (ESC/POS), and no filter of CUPS may touch them.

    Raises
    ------
    DeviceError
        There is no printer, or it did not take the document.
    """
    if not printer:
        raise _failed(printer, N_("no printer is set up on this device"), N_("Set console.printer."))
    kind, _, queue = printer.partition(":")
    if kind == "cups":
        _lp(document, queue, raw=raw)
    else:
        _device(document, Path(printer))


def _lp(document: bytes, queue: str, *, raw: bool) -> None:
    command = ["lp", "-d", queue, *(["-o", "raw"] if raw else []), "-"]
    try:
        # the document goes through standard input: a patient's report is never a file that others may read
        subprocess.run(command, input=document, capture_output=True, timeout=_DEADLINE_S, check=True)
    except FileNotFoundError:
        raise _failed(queue, N_("this device has no CUPS"), N_("Install the Debian package cups-client.")) from None
    except subprocess.TimeoutExpired:
        raise _failed(queue, N_("the printer does not answer"), _LOOK) from None
    except subprocess.CalledProcessError as error:
        cause = error.stderr.decode("utf-8", "replace").strip() or N_("the printer does not answer")
        raise _failed(queue, cause, _LOOK) from None


_LOOK = N_("Look whether it is switched on, connected, and has paper; then print again.")


def _device(document: bytes, path: Path) -> None:
    try:
        # not blocking: a printer without paper must not hold the screen
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _failed(str(path), error.strerror or str(error), _LOOK) from None
    try:
        _write_all(handle, document, path)
    finally:
        os.close(handle)


def _write_all(handle: int, document: bytes, path: Path) -> None:
    import select

    at = 0
    while at < len(document):
        if not select.select([], [handle], [], _DEADLINE_S)[1]:
            raise _failed(str(path), N_("the printer does not answer"), _LOOK)
        try:
            at += os.write(handle, document[at : at + 4096])
        except BlockingIOError:
            continue
        except OSError as error:
            raise _failed(str(path), error.strerror or str(error), _LOOK) from None


def _failed(printer: str, cause: str, remedy: str) -> DeviceError:
    return DeviceError(operation="printing", target=printer or "printer", cause=cause, remedy=remedy)
