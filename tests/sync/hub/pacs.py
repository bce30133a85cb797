"""Other people's PACS on loopback: dcmtk's storescp, and Orthanc with its DICOMweb plugin."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from ports import free_port

from .conftest import wait_for


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install {package})")
    return found


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), f"{command[0]} listens", 60)
        yield
    finally:
        process.terminate()
        process.wait(20)


class StoreScp:
    """storescp, as often as a test starts it, over one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()

    def running(self, *options: str) -> Any:
        command = [_program("storescp", "dcmtk"), *options, "-aet", "PACS", "-od", str(self.folder), str(self.port)]
        return _running(command, self.port)

    def objects(self) -> dict[str, pydicom.Dataset]:
        read = [pydicom.dcmread(path, force=True) for path in self.folder.iterdir()]
        return {str(data.SOPInstanceUID): data for data in read}


class Orthanc:
    """Orthanc on two free ports."""

    def __init__(self, folder: Path) -> None:
        self.web, self.dicom = free_port(), free_port()
        folder.mkdir()
        self._file = folder / "orthanc.json"
        plugins = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
        settings = {
            "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": self.web,
            "DicomPort": self.dicom, "DicomAet": "PACS", "Plugins": [plugins], "RemoteAccessAllowed": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "DicomAlwaysAllowStore": True,
        }  # fmt: skip
        self._file.write_text(json.dumps(settings))

    def running(self) -> Any:
        return _running([_program("Orthanc", "orthanc orthanc-dicomweb"), str(self._file)], self.web)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web}/dicom-web"

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=30)
        connection.request("GET", path)
        try:
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()
