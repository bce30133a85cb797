"""The command line as its users type it: output, exit codes, and every kind of bad input."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]


def aidpost(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AIDPOST, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **more
    )


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def write_ecg(path: Path, millivolts: list[str], fs_hz: int = 250) -> Path:
    rows = [f"{index / fs_hz:.4f},{value}" for index, value in enumerate(millivolts)]
    path.write_text("time_s,II_mV\n" + "\n".join(rows) + "\n")
    return path


def simulated_ecg(path: Path) -> Path:
    from aidpost.firmware_bridge.simulators.ecg import simulate_ecg

    made = simulate_ecg("sinus", seconds=12, fs_hz=250.0, leads=("II",), seed=1)
    return write_ecg(path, [f"{value:.4f}" for value in made.millivolts[0]])


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_help_names_every_command() -> None:
    done = aidpost("--help")
    assert done.returncode == 0
    for command in ("demo", "exam", "analyze", "devices", "outbox", "hub", "models", "board"):
        assert command in done.stdout


def test_ecg_gives_the_object_of_the_contract(tmp_path: Path) -> None:
    done = aidpost("analyze", "ecg", simulated_ecg(tmp_path / "a.csv"), "--json")
    assert done.returncode == 0, done.stderr
    (found,) = lines(done.stdout)
    assert found["schema"] == "aidpost.ecg/1"
    assert found["quality"]["usable"]
    assert set(found["rhythm"]["probability"]) == {"N", "A", "O", "~"}
    assert 12 <= len(found["beats"]["sample"]) <= 18
    assert found["models"][0]["name"] == "ecg-rhythm"


def test_bad_ecgs_are_named_and_the_good_one_is_still_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    simulated_ecg(folder / "good.csv")
    (folder / "empty.csv").write_text("")
    (folder / "lonely.hea").write_text("lonely 1 360 1000\nlonely.dat 212 200 11 1024 0 0 0 II\n")
    done = aidpost("analyze", "ecg", folder, "--jsonl")
    assert done.returncode == 3
    found = {item["source"]: item for item in lines(done.stdout)}
    assert found["good.csv"]["schema"] == "aidpost.ecg/1"
    for bad in ("empty.csv", "lonely"):
        assert found[bad]["error"]["code"] == "unreadable"
        assert found[bad]["error"]["message"]


@pytest.mark.parametrize("values", [["0"] * 3000, ["nan"] * 3000, ["0.1"]], ids=["zeros", "NaN", "one sample"])
def test_recording_with_nothing_in_it_is_not_usable_and_not_reassuring(tmp_path: Path, values: list[str]) -> None:
    done = aidpost("analyze", "ecg", write_ecg(tmp_path / "x.csv", values), "--jsonl")
    (found,) = lines(done.stdout)
    if done.returncode == 3:
        assert found["error"]["remedy"]
    else:
        assert done.returncode == 0, done.stderr
        assert not found["quality"]["usable"]
        assert found["rhythm"]["label"] is None
        assert found["triage"] != "routine"


def test_bad_photographs_are_named_and_the_good_one_is_still_read(tmp_path: Path) -> None:
    from aidpost.firmware_bridge.clock import SystemClock
    from aidpost.firmware_bridge.sources import open_source

    good = open_source("sim:fundus?seed=1&format=jpeg", clock=SystemClock(boot=0)).read_photo().encoded
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(good)
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a photograph")
    (folder / "huge.png").write_bytes(png_of_size(30_000, 30_000))
    done = aidpost("analyze", "fundus", folder, "--jsonl", "--heatmap", tmp_path / "maps")
    found = {item["source"]: item for item in lines(done.stdout)}
    assert done.returncode == 3
    assert found["good.jpg"]["schema"] == "aidpost.fundus/1"
    assert found["good.jpg"]["eye"] is None
    for bad in ("cut.jpg", "empty.jpg", "text.jpg", "huge.png"):
        assert found[bad]["error"]["code"] == "unreadable", found[bad]
        assert bad in found[bad]["error"]["message"]
        assert found[bad]["error"]["remedy"]


def test_unknown_lead_is_a_usage_error(tmp_path: Path) -> None:
    done = aidpost("analyze", "ecg", simulated_ecg(tmp_path / "a.csv"), "--lead", "V9")
    assert done.returncode == 2
    assert "V9" in done.stderr


def test_json_takes_one_input_only(tmp_path: Path) -> None:
    first, second = simulated_ecg(tmp_path / "a.csv"), simulated_ecg(tmp_path / "b.csv")
    done = aidpost("analyze", "ecg", first, second, "--json")
    assert done.returncode == 2
    assert "--jsonl" in done.stderr


def test_configuration_with_a_wrong_key_stops_the_command(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[sync]\nhots = 'x'\n")
    done = aidpost("--config", tmp_path / "wrong.toml", "outbox", "status")
    assert done.returncode == 2
    assert "hots" in done.stderr
    assert "host" in done.stderr


def test_exam_is_kept_shown_in_the_outbox_and_waits_for_a_broker_that_refuses(tmp_path: Path) -> None:
    state = tmp_path / "state"
    identity = json.loads(aidpost("--state-dir", state, "board", "identity", "--json").stdout)
    hub = json.loads(
        aidpost("--state-dir", tmp_path / "hub", "hub", "enroll", "unit", identity["public_key"], "--json").stdout
    )
    (tmp_path / "hub.key").write_text(hub["hub_public_key"])
    (tmp_path / "c.toml").write_text(f"[sync]\nport = 1\nhub_key_file = '{tmp_path / 'hub.key'}'\n")
    done = aidpost(
        "--config", tmp_path / "c.toml", "--state-dir", state, "exam", "--vitals", "sim:vitals", "--answer",
        "chest-pain=yes", "--send", "--timeout", "2", "--json",
    )  # fmt: skip
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr or "localhost:1" in done.stderr
    assert "safe in the outbox" in done.stderr
    report = json.loads(done.stdout)
    assert report["triage"]["level"] in {"urgent", "emergency"}
    status = json.loads(aidpost("--state-dir", state, "outbox", "status", "--json").stdout)
    assert [(one["cls"], one["queued"]) for one in status["classes"]] == [("alert", 1)]


def test_exam_with_an_unreadable_input_says_so_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no")
    done = aidpost("--state-dir", tmp_path / "s", "exam", "--fundus-left", tmp_path / "x.jpg", "--vitals", "sim:vitals")
    assert done.returncode == 3
    assert "x.jpg" in done.stderr
    assert "not assessed" in done.stdout


def test_exam_of_nothing_or_of_an_unknown_patient_is_a_usage_error(tmp_path: Path) -> None:
    assert aidpost("--state-dir", tmp_path / "s", "exam").returncode == 2
    unknown = "00000000-0000-4000-8000-000000000000"
    done = aidpost("--state-dir", tmp_path / "s", "exam", "--patient", unknown, "--vitals", "sim:vitals")
    assert done.returncode == 2
    assert unknown in done.stderr


def test_models_are_listed_and_verified() -> None:
    listed = json.loads(aidpost("models", "list", "--json").stdout)
    assert {"ecg-rhythm", "fundus-quality", "fundus-dr"} <= {model["name"] for model in listed}
    done = aidpost("models", "verify", "--json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0, checks
    assert all(check["error"] is None for check in checks)


def test_models_are_timed_on_this_board() -> None:
    rows = json.loads(aidpost("models", "bench", "--runs", "2", "--json").stdout)
    assert {row["name"] for row in rows} >= {"ecg-rhythm", "fundus-quality", "fundus-dr"}
    assert all(row["median_ms"] > 0 for row in rows)


def test_exam_is_explained_by_rule_and_limit(tmp_path: Path) -> None:
    state = tmp_path / "s"
    done = aidpost("--state-dir", state, "exam", "--vitals", "sim:vitals?profile=hypertensive", "--json")
    exam = json.loads(done.stdout)["exam"]["id"]
    explained = json.loads(aidpost("--state-dir", state, "explain", exam, "--json").stdout)
    pressure = next(one for one in explained if one["rule"].startswith("bp-"))
    assert pressure["limits"]
    assert pressure["version"]
    unknown = aidpost("--state-dir", state, "explain", "00000000-0000-4000-8000-000000000000")
    assert unknown.returncode == 2


def test_model_in_shadow_is_hidden_on_the_command_line_too(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[inference]\nshadow = true\n")
    device = ("--config", tmp_path / "c.toml", "--state-dir", tmp_path / "s")
    done = aidpost(*device, "exam", "--ecg", "sim:ecg?rhythm=af&seconds=30", "--json")
    report = json.loads(done.stdout)
    assert report["ecg"][0]["rhythm"]["label"] is None
    assert "heart rhythm" in report["not_assessed"]
    explained = json.loads(aidpost(*device, "explain", report["exam"]["id"], "--json").stdout)
    assert not any("fibrillation" in one["conclusion"] for one in explained)
    seen = json.loads(aidpost("--state-dir", tmp_path / "s", "explain", report["exam"]["id"], "--json").stdout)
    assert any("fibrillation" in one["conclusion"] for one in seen), "it is kept, for the hub"


def test_board_is_detected_from_a_copied_tree(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    (tmp_path / "proc/meminfo").write_text("MemTotal:        3884360 kB\n")
    found = json.loads(aidpost("board", "detect", "--json", "--root", tmp_path).stdout)
    assert (found["kind"], found["memory_mb"], found["temperature_c"]) == ("raspberry-pi-4", 3793, None)


def test_demo_ends_by_itself_with_a_receipt() -> None:
    done = aidpost("demo", "--once", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["synced"]
    assert shown["report"]["origin"] == "simulated"
    assert len(shown["report"]["fundus"]) == 2
    assert shown["report"]["ecg"][0]["rhythm"]["probability"]
