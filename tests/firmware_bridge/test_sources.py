"""The grammar of sources, and that each row of the table can be imported."""

from __future__ import annotations

import importlib

import pytest

from aidpost.errors import UsageError
from aidpost.firmware_bridge.clock import Clock, SystemClock
from aidpost.firmware_bridge.sources import SOURCES, Kind, open_source, parse_source


@pytest.mark.parametrize(
    ("text", "name", "address", "options"),
    [
        ("exam/100.hea", "file", "exam/100.hea", {}),
        ("C.dat", "file", "C.dat", {}),
        ("file:x.dcm", "file", "x.dcm", {}),
        ("file:odd?name.jpg", "file", "odd?name.jpg", {}),
        ("serial:/dev/ttyACM0?device=healthypi4", "serial", "/dev/ttyACM0", {"device": "healthypi4"}),
        ("ble:AA:BB:CC:DD:EE:FF", "ble", "AA:BB:CC:DD:EE:FF", {}),
        ("ble:heart-rate", "ble", "heart-rate", {}),
        ("camera:", "camera", "", {}),
        ("camera:/dev/video0", "camera", "/dev/video0", {}),
        ("csi:0", "csi", "0", {}),
        ("replay:capture.bin?device=cyton", "replay", "capture.bin", {"device": "cyton"}),
        ("sim:ecg?rhythm=af&seconds=30&seed=1", "sim", "ecg", {"rhythm": "af", "seconds": "30", "seed": "1"}),
    ],
)
def test_a_source_is_a_path_or_a_url(text: str, name: str, address: str, options: dict[str, str]) -> None:
    spec = parse_source(text)
    assert (spec.name, spec.address, dict(spec.options)) == (name, address, options)


def test_a_spec_reads_back_as_it_was_written() -> None:
    for text in ("sim:ecg?rhythm=af&seed=1", "ble:AA:BB:CC:DD:EE:FF", "serial:/dev/ttyACM0?device=healthypi4"):
        assert str(parse_source(text)) == text


@pytest.mark.parametrize("text", ["", "usb:0", "http://example.org/x.jpg"])
def test_an_unknown_source_is_a_usage_error_that_lists_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert "serial:" in caught.value.remedy


@pytest.mark.parametrize("row", SOURCES.values())
def test_every_row_of_the_table_names_a_class_that_exists(row: str) -> None:
    module, _, name = row.partition(":")
    assert isinstance(getattr(importlib.import_module(module), name).kinds, frozenset)


@pytest.mark.parametrize(
    "text",
    [
        "sim:ecg?rythm=af",
        "sim:ecg?rhythm=polka",
        "sim:ecg?seed=minus",
        "sim:ecg?leads=I,I",
        "sim:fundus?eye=third",
        "sim:vitals?profile=x",
        "sim:eeg",
        "file:",
        "replay:x?device=cyton&speed=9",
    ],
)
def test_a_wrong_option_is_refused_when_the_source_is_opened(text: str, clock: Clock) -> None:
    with pytest.raises(UsageError):
        open_source(text, clock=clock)


def test_asking_for_a_kind_that_is_not_given_says_what_is(clock: Clock) -> None:
    with pytest.raises(UsageError, match="ecg only"):
        open_source("sim:ecg", clock=clock).read_photo()
    assert open_source("sim:vitals", clock=clock).kinds == {Kind.VITALS}


def test_the_system_clock_tells_wall_and_monotonic_time() -> None:
    clock = SystemClock(boot=7, synced=True)
    first, second = clock.now(), clock.now()
    assert second.monotonic_ms >= first.monotonic_ms
    assert (first.boot, first.synced) == (7, True)
    assert first.wall_ms > 1_600_000_000_000
