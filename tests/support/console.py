"""`aidpost run` in a process of its own, as a device runs it, and a client that taps its pages without a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import urlencode, urlsplit

from websockets.typing import Origin

TOP = Path(__file__).parents[2]
AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]

SENSORS = """
[sensors]
ecg = "sim:ecg?rhythm=sinus&fs=250"
fundus_right = "sim:fundus?eye=right&grade=0"
fundus_left = "sim:fundus?eye=left&grade=0&seed=2"
vitals = ["sim:vitals"]
"""

EXAM = "[exam]\necg_seconds = 9\n"


class Running:
    """A device in a folder; `kill` pulls the plug, `start` gives power again."""

    def __init__(self, folder: Path, configuration: str = SENSORS, *, practice: bool = True, exam: str = EXAM) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.state = folder, folder / "state"
        (folder / "aidpost.toml").write_text(
            f'{exam}[clinic]\nname = "Kisumu East"\nemergency_telephone = "999"\n' + configuration
        )
        self.url, self.cookie, self.practice = "", "", practice
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Start, and wait for the screen; seconds that took."""
        began = time.monotonic()
        arguments = ["--config", str(self.folder / "aidpost.toml"), "--state-dir", str(self.state)]
        self.process = subprocess.Popen(
            [*AIDPOST, *arguments, "run", *(["--simulate"] if self.practice else []), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=TOP,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("screen at"), line
        self.url = line.split()[-1].rstrip("/")
        self.cookie = ""
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL to the device and what it started: a power cut."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
            assert self.process.stdout is not None
            self.process.stdout.close()

    # -- a client

    def ask(self, method: str, path: str, fields: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Status, where it sends, and the page."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        headers = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(fields or {}) if method == "POST" else None
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        if cookie := answer.getheader("set-cookie"):
            self.cookie = cookie.split(";")[0]
        text = answer.read().decode("utf-8", "replace")
        where = answer.getheader("location", "")
        connection.close()
        return answer.status, where, text

    def page(self, path: str) -> str:
        """A page that is there."""
        status, where, text = self.ask("GET", path)
        assert status == 200, (status, where)
        return text

    def tap(self, path: str, **fields: str) -> str:
        """Send a form; where the screen goes then."""
        status, where, text = self.ask("POST", path, fields)
        assert status == 303, (status, re.sub("<[^>]*>", " ", text)[:600])
        return where

    def set_up(self) -> None:
        """The first worker, who is at the screen then."""
        self.tap("/setup", name="Rose", pin="2580", again="2580")

    def unlock(self) -> None:
        """The same worker after a restart, who confirms the clock."""
        self.tap("/unlock", worker="Rose", pin="2580", clock="right")

    def record_ecg(self, exam: str) -> str:
        """Record an ECG as the page's script does; where the page is told to go once it is kept."""
        from websockets.sync.client import connect

        address = f"{self.url.replace('http', 'ws')}/live{exam.removeprefix('/exams')}/ecg"
        with connect(address, origin=Origin(self.url), additional_headers={"Cookie": self.cookie}) as socket:
            for message in socket:
                said = json.loads(message) if isinstance(message, str) else {}
                assert "error" not in said, said
                if "done" in said:
                    return str(said["done"])
        raise AssertionError("the recording ended without a word")

    def register(self, name: str = "Amina Yusuf") -> str:
        """A new patient with an exam: its path."""
        patient = self.tap(
            "/patients/new", name=name, born="1961", sex="female", screening="yes", sharing="yes", number="A-17"
        )
        return self.tap(f"{patient}/exams")
