"""A cuff's memory on the screen, in a real Chromium by touch: ticked, given to one patient at once, undone, thrown
away, and not asked about again when the cuff sends it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import Browser
from console import Running
from console_pages import sign_in, too_small

from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus

CONFIGURATION = '[sensors]\nvitals = ["ble:blood-pressure", "ble:thermometer"]\n[sync]\nenabled = false\n'
MEMORY = [(120 + day, 70 + day, 60 + day, DeviceTime(2025, 3, day, 8, 15, 0)) for day in range(1, 7)]


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
def test_a_cuffs_memory_is_given_at_once_undone_thrown_away_and_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    air = (sensors.blood_pressure_cuff(readings=MEMORY), sensors.thermometer(celsius=36.6))
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        with (
            FakeBluez(address, air),
            Running(tmp_path / "device", CONFIGURATION, practice=False) as device,
            Browser(width, height) as screen,
        ):
            device.set_up()
            exam = device.register("Amina Yusuf")
            device.register("Joseph Otieno")
            sign_in(screen, device)

            def seen(name: str) -> str:
                screen.screenshot(tmp_path / f"{name}.png")
                assert too_small(screen) == [], name
                assert screen.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
                return re.sub(r"\s+", " ", str(screen.evaluate("document.body.innerText")))

            screen.open(f"{device.url}{exam}/vitals")
            screen.tap("form[action$='/vitals/read'] button")
            text = seen("waiting")
            assert "2025-03-06 08:15 Blood pressure 126/76 mmHg" in text
            assert text.index("2025-03-06") < text.index("2025-03-01"), "the newest first"
            screen.tap("footer a[href*='all=1']")
            assert screen.evaluate("document.querySelectorAll('input:checked').length") == len(MEMORY)
            screen.evaluate("document.querySelector('input').click()")
            seen("ticked")
            screen.tap("footer .primary")
            assert "Joseph Otieno" in seen("whose")
            screen.tap("main button.patient")
            text = seen("a-last-look")
            assert "Are all of these of Amina Yusuf?" in text
            assert "2025-03-01 08:15 Blood pressure 121/71 mmHg" in text
            assert "126/76" not in text, "that one was not ticked"
            screen.tap("footer .primary")
            assert "Given to Amina Yusuf: 5" in seen("given")
            screen.tap(".done-note button")
            assert "2025-03-01" in seen("undone")
            screen.tap("footer a[href*='all=1']")
            screen.tap("footer .danger")
            assert "Thrown away: 6" in seen("thrown-away")
            # the cuff sends its memory again, and the thermometer its one reading
            screen.open(f"{device.url}{exam}/vitals")
            screen.tap("form[action$='/vitals/read'] button")
            assert "Sent again, and not taken twice: 6" in seen("sent-again")
            screen.tap(".note .button")
            screen.tap("main a[href='/unassigned/thrown']")
            text = seen("what-was-thrown-away")
            assert "sent again: 1" in text
            assert "Rose" in text
            screen.evaluate("document.querySelector('input').click()")
            screen.tap("footer .primary")
            assert "Thrown away (5)" in seen("taken-back")
            assert screen.complaints == []


def test_what_was_decided_is_as_it_was_after_the_power_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to all of the device as soon as the screen has answered; then the cuff sends its memory again."""
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        configuration = CONFIGURATION.replace(', "ble:thermometer"', "")
        cuff = sensors.blood_pressure_cuff(readings=MEMORY)
        with FakeBluez(address, (cuff,)), Running(tmp_path / "device", configuration, practice=False) as device:
            device.set_up()
            exam = device.register("Amina Yusuf")
            assert device.tap(f"{exam}/vitals/read") == "/unassigned"
            ticks = re.findall(r'name="(m-[0-9a-f-]+)"', device.page("/unassigned"))
            assert len(ticks) == len(MEMORY)
            device.tap("/unassigned/choose", to="nobody", **dict.fromkeys(ticks[:3], "1"))
            device.kill()
            device.start()
            device.unlock()
            device.tap("/unassigned/give", exam=exam.split("/")[-1], **dict.fromkeys(ticks[3:5], "1"))
            device.kill()
            device.start()
            device.unlock()
            assert device.tap(f"{exam}/vitals/read") == f"{exam}/vitals?again=6"
            assert re.findall(r'name="(m-[0-9a-f-]+)"', device.page("/unassigned")) == ticks[5:]
            assert len(re.findall("sent again: 1", device.page("/unassigned/thrown"))) == 3
            assert "122/72" not in device.page("/unassigned")
            assert "122" in device.page(f"{exam}/result?part=vitals")


def test_an_emergency_exam_sees_no_other_patient_where_readings_wait(tmp_path: Path) -> None:
    with Running(tmp_path / "device") as device:
        device.set_up()
        device.register("Amina Yusuf")
        device.tap("/leave")
        device.cookie = ""
        device.tap("/break-glass")
        number = "0b7ba9a0-0000-4000-8000-000000000000"
        status, _, text = device.ask("POST", "/unassigned/choose", {f"m-{number}": "1"})
        assert (status, "Amina" in text) == (200, False)
        assert device.ask("POST", "/unassigned/choose", {"m-nonsense": "1"})[0] == 400
        assert device.ask("POST", "/unassigned/choose")[0] == 400
        assert device.ask("POST", "/unassigned/give", {f"m-{number}": "1", "exam": "nobody"})[0] == 400
