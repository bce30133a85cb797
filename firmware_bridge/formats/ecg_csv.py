"""ECG as comma-separated text.

The first line names the columns: an optional time column and one column a lead, each with its unit::

    time_s,I_mV,II_mV          time (ms),ECG (uV)          'Elapsed time','MLII','V5'  +  'hh:mm:ss.mmm','mV','mV'

The unit stands in brackets or after an underscore, or all units in a second line (as PhysioNet's rdsamp writes them).
Without a time column, a line `# fs_hz: 250` before the names gives the rate. Empty cells and `nan` are missing samples,
and so are steps that the time column leaves out. Values are kept to 0.1 µV.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aidpost.firmware_bridge.formats.wave import MILLIVOLT, Wave, is_ecg_label, unique_names, unreadable

LSB_MV = 1e-4
MAX_BYTES = 512 << 20
_TIME = re.compile(r"(elapsed )?(time|t)|sample interval", re.I)
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "hh:mm:ss.mmm": 1.0}
_UNIT = re.compile(r"(?P<name>.*?)\s*(?:\((?P<a>[^)]*)\)|\[(?P<b>[^\]]*)\]|_(?P<c>[A-Za-zµμ]+))\s*")
_RATE = re.compile(r"#\s*fs(?:_hz)?\s*[:=]\s*([\d.]+)", re.I)
_FORMAT_HELP = "Name the columns with their units, such as time_s,I_mV,II_mV."


@dataclass(frozen=True)
class _Column:
    name: str
    unit: str


def _split_unit(cell: str) -> _Column:
    match = _UNIT.fullmatch(cell)
    if match is None:
        return _Column(cell, "")
    unit = match["a"] or match["b"] or match["c"] or ""
    if match["c"] and unit.lower() not in MILLIVOLT and unit.lower() not in _SECONDS:
        return _Column(cell, "")  # an underscore that is part of the name
    return _Column(match["name"], unit)


def read_csv(path: Path) -> Wave:
    """The leads of a CSV file (see the module for its form).

    Raises
    ------
    UnreadableInputError
        It is not such a file: no unit, no rate, a cell that is no number, time that runs backwards.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise unreadable(path, "it is larger than 512 MB", "Split it, or convert it to WFDB.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            fs_hz, columns, rows = _read_head(path, file)
            table = _read_rows(path, rows, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, f"it is not CSV text ({error})", _FORMAT_HELP) from None
    return _to_wave(path, fs_hz, columns, table)


def _read_head(path: Path, lines: Iterable[str]) -> tuple[float | None, list[_Column], Iterator[list[str]]]:
    fs_hz: float | None = None
    rest = iter(lines)
    for line in rest:
        if line.startswith("#") or not line.strip():
            rate = _RATE.match(line)
            fs_hz = float(rate[1]) if rate else fs_hz
            continue
        break
    else:
        raise unreadable(path, "it is empty")
    columns = [_split_unit(_clean(cell)) for cell in next(csv.reader([line]))]
    rows = csv.reader(rest)
    if not any(column.unit for column in columns):
        units = [_clean(cell) for cell in next(rows, [])]
        if len(units) == len(columns) and any(unit.lower() in MILLIVOLT for unit in units):
            columns = [_Column(c.name, unit) for c, unit in zip(columns, units, strict=True)]
    if not any(_is_lead(column) for column in columns):
        raise unreadable(path, "no column has a unit of voltage", _FORMAT_HELP)
    return fs_hz, columns, rows


def _is_lead(column: _Column) -> bool:
    return column.unit.lower() in MILLIVOLT and is_ecg_label(column.name) and not _TIME.fullmatch(column.name)


def _clean(cell: str) -> str:
    return cell.strip().strip("'\"").strip()


def _read_rows(path: Path, rows: Iterator[list[str]], columns: list[_Column]) -> npt.NDArray[np.float64]:
    values: list[float] = []
    count = 0
    for row in rows:
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        count += 1
        if len(row) != len(columns):
            raise unreadable(path, f"data row {count} has {len(row)} cells, not {len(columns)}", _FORMAT_HELP)
        try:
            values.extend([float(cell) for cell in row])
        except ValueError:
            values.extend(_cell(path, cell, count) for cell in row)
    if count == 0:
        raise unreadable(path, "it holds no sample")
    return np.array(values).reshape(count, len(columns))


def _cell(path: Path, cell: str, row: int) -> float:
    text = _clean(cell)
    if text in {"", "-"}:  # rdsamp writes an invalid sample as "-"
        return math.nan
    try:
        if ":" in text:
            seconds = 0.0
            for part in text.split(":"):
                seconds = seconds * 60 + float(part)
            return seconds
        return float(text)
    except ValueError:
        raise unreadable(path, f"{text!r} in data row {row} is not a number", _FORMAT_HELP) from None


def _to_wave(path: Path, fs_hz: float | None, columns: list[_Column], table: npt.NDArray[np.float64]) -> Wave:
    times = [n for n, c in enumerate(columns) if _TIME.fullmatch(c.name)]
    leads = [n for n, c in enumerate(columns) if _is_lead(c)]
    data = table[:, leads].T * np.array([[MILLIVOLT[columns[n].unit.lower()]] for n in leads])
    if times:
        column = columns[times[0]]
        if column.unit.lower() not in _SECONDS:
            raise unreadable(path, f"the time column has no unit (found {column.unit!r})", _FORMAT_HELP)
        fs_hz, data = _place(path, table[:, times[0]] * _SECONDS[column.unit.lower()], data)
    elif fs_hz is None or not fs_hz > 0:
        raise unreadable(path, "it has no time column and no rate", "Add a line `# fs_hz: 250` at the top.")
    counts, invalid = np.round(data / LSB_MV), ~np.isfinite(data)
    counts[invalid] = 0
    if np.abs(counts).max(initial=0) >= 2**31:
        raise unreadable(path, "a value is beyond 200 V")
    return Wave(
        counts=counts.astype(np.int32),
        fs_hz=fs_hz,
        names=unique_names([columns[n].name for n in leads]),
        lsb_mv=(LSB_MV,) * len(leads),
        baseline=(0,) * len(leads),
        invalid=invalid if invalid.any() else None,
    )


def _place(
    path: Path, time: npt.NDArray[np.float64], data: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """The rate, and the samples each at its own time; what the times leave out is NaN.

    The rate is the mean over the longest run without a gap, because written times are rounded; within 0.05 % of a whole
    number it is taken for that number.
    """
    if len(time) < 2:
        raise unreadable(path, "one sample has no rate", "Add a line `# fs_hz: 250` and leave the time column out.")
    steps = np.diff(time)
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise unreadable(path, "its time does not increase from row to row")
    step = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * step)
    edges = np.concatenate(([0], gaps + 1, [len(time)]))
    longest = int(np.argmax(np.diff(edges)))
    start, stop = int(edges[longest]), int(edges[longest + 1]) - 1
    fs_hz = (stop - start) / (time[stop] - time[start]) if stop > start else 1 / step
    if abs(fs_hz - round(fs_hz)) < 5e-4 * fs_hz:
        fs_hz = float(round(fs_hz))
    index = np.arange(len(time)) if not len(gaps) else np.round((time - time[0]) * fs_hz).astype(np.int64)
    if index[-1] > 100 * len(time) or (np.diff(index) < 1).any():
        raise unreadable(path, "its times are too irregular for a recording")
    placed = np.full((len(data), int(index[-1]) + 1), np.nan)
    placed[:, index] = data
    return float(fs_hz), placed
