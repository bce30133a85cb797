"""What all tests share: the data folder, a broker, and the rule that a test is not skipped in CI without a reason."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from ports import free_port

TOP = Path(__file__).parents[1]

ALLOWED_SKIPS = (
    "tflite-runtime is not installed",  # no wheel for this Python; the fallback is tested where there is one
    "no other runtime",
    "aidpost[train]",  # torch and TensorFlow are gigabytes, and retraining takes minutes of both cores
    "only root may mount a disk",  # a file system of its own, to fill and to stop; CI's containers run as root
    "arm-none-eabi-gcc is not installed",  # a large compiler for one small file; CI brings it where it can
)

settings.register_profile("default", deadline=None)
# two cores shared with a browser and brokers, or an emulated processor: time says nothing there
settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("arm", deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_databases: the hub on SQLite and on PostgreSQL")
    config.addinivalue_line("markers", "slow_emulated: too slow under emulation; left out by scripts/test-arm")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With CI=true a skip that is not on the list fails: everything it needs is there."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real recordings (AIDPOST_DATA); the test is skipped where there is none."""
    folder = Path(os.environ.get("AIDPOST_DATA", TOP / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder} (AIDPOST_DATA)")
    return folder


class Mosquitto:
    """A real broker on a free loopback port, stopped by its process id."""

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        self.port = free_port()
        self.folder = folder
        self._configuration = folder / "mosquitto.conf"
        folder.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\nlog_dest file {folder}/log\n{extra}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(binary).exists():
            pytest.skip("Mosquitto is not installed")
        self._process = subprocess.Popen([binary, "-c", str(self._configuration)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        """SIGKILL: what it had not saved is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """Mosquitto with its default limits."""
    broker = Mosquitto(tmp_path / "mosquitto")
    broker.start()
    yield broker
    broker.stop()
