"""The plug is pulled (SIGKILL) right after each step was acknowledged: the exam goes on where it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from console import Running


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        running.set_up()
        yield running


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_sigkill_after_each_step_loses_nothing_that_was_acknowledged(device: Running) -> None:
    exam = device.register()
    number = "7b1e3cf2-0000-4000-8000-000000000001"

    def ecg() -> None:
        assert device.record_ecg(exam).endswith("/ecg")

    def pressure() -> None:
        fields = {"systolic_bp": "141", "diastolic_bp": "85", "method": "cuff, by ear", "number": number}
        device.tap(f"{exam}/vitals/blood-pressure", **fields)

    def temperature() -> None:
        device.tap(f"{exam}/vitals/temperature", temperature="37.4", method="oral", number=number)

    done: list[tuple[str, str, Callable[[], object]]] = [
        ("/result?part=result", "Fainting", lambda: device.tap(f"{exam}/questions", question="fainting", answer="yes")),
        ("/vitals", "141/85", pressure),
        ("/vitals", "37.4", temperature),
        ("/eye/right", "Attempt 1 / 3", lambda: device.tap(f"{exam}/eye/right")),
        ("/eye/left", "Attempt 1 / 3", lambda: device.tap(f"{exam}/eye/left")),
        ("/ecg", "Good recording", ecg),
    ]
    seen: list[tuple[str, str]] = []
    for page, words, act in done:
        act()
        device.kill()
        device.start()
        assert device.ask("GET", exam)[1] == "/lock", "after a power cut the screen is locked"
        device.unlock()
        if device.ask("GET", exam)[1].endswith("/alarm"):
            device.tap(f"{exam}/acknowledge")
        seen.append((page, words))
        for earlier, shown in seen:
            assert shown in text_of(device.page(exam + earlier)), f"{earlier} lost {shown}"
    device.tap(f"{exam}/finish")
    device.kill()
    device.start()
    device.unlock()
    finished = text_of(device.page(f"{exam}/result"))
    assert "Finish and send" not in finished
    assert "141 mmHg" in text_of(device.page(f"{exam}/result?part=vitals"))


def test_recording_that_the_power_cut_ended_is_not_there_and_the_exam_is(device: Running) -> None:
    from websockets.sync.client import connect
    from websockets.typing import Origin

    exam = device.register()
    device.tap(f"{exam}/questions", question="diabetes", answer="yes")
    address = f"{device.url.replace('http', 'ws')}/live{exam.removeprefix('/exams')}/ecg"
    with connect(address, origin=Origin(device.url), additional_headers={"Cookie": device.cookie}) as socket:
        for _ in range(20):
            socket.recv()
        device.kill()
    device.start()
    device.unlock()
    assert "begun" in text_of(device.page(exam))
    assert "Record" in text_of(device.page(f"{exam}/ecg"))
