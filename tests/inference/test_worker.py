"""The inference process: killed and hung on purpose."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aidpost.errors import InferenceTimeoutError, ModelError, UnreadableInputError, UsageError
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.inference import ecg, fundus
from aidpost.inference.model import Models
from aidpost.inference.worker import InferenceWorker, WorkerSettings

from .conftest import MakeEcg, MakePhoto, beats_at


@pytest.fixture
def worker(models: Models) -> Iterator[InferenceWorker]:
    with InferenceWorker(WorkerSettings(roots=models.roots), deadline_s=20.0) as running:
        yield running


def test_the_process_gives_what_the_library_gives(
    worker: InferenceWorker, models: Models, make_ecg: MakeEcg, make_photo: MakePhoto
) -> None:
    recording = make_ecg(beats_at(np.arange(0.5, 19.5, 0.8), 20.0))
    assert worker.ecg(recording) == ecg.analyze(recording, models)
    photo = make_photo(encode_fundus(render_fundus(grade=2, size=600, seed=2)))
    there, here = worker.fundus(photo), fundus.analyze(photo, models)
    assert there.result == here.result
    assert there.heatmap_png == here.heatmap_png
    assert worker.pid not in (None, os.getpid())


def test_errors_come_through_as_they_are(worker: InferenceWorker, make_ecg: MakeEcg, make_photo: MakePhoto) -> None:
    pid = worker.pid
    with pytest.raises(UsageError, match="no lead"):
        worker.ecg(make_ecg(np.zeros(100)), "V7")
    with pytest.raises(UnreadableInputError, match="neither a JPEG nor a PNG"):
        worker.fundus(make_photo(b"hello"))
    assert worker.pid == pid


def test_a_missing_model_is_an_error_and_not_the_end(tmp_path: Path, make_ecg: MakeEcg) -> None:
    with InferenceWorker(WorkerSettings(roots=(tmp_path,))) as worker:
        for _ in range(2):
            with pytest.raises(ModelError, match="no folder of it"):
                worker.ecg(make_ecg(np.zeros(100)))


def killed(worker: InferenceWorker) -> int:
    """Kill the worker's process; its id, when it is dead."""
    pid, end = worker.pid, time.monotonic() + 30
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while worker.pid is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return pid


def test_a_process_killed_between_requests_is_replaced(worker: InferenceWorker, make_ecg: MakeEcg) -> None:
    recording = make_ecg(beats_at(np.arange(0.5, 9.5, 0.8), 10.0))
    pid = killed(worker)
    assert worker.ecg(recording).beats.sample
    assert worker.pid not in (None, pid)


def test_a_recording_that_meets_a_process_that_is_just_ending_goes_to_another(
    worker: InferenceWorker, make_ecg: MakeEcg, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_ecg(beats_at(np.arange(0.5, 9.5, 0.8), 10.0))
    pid = killed(worker)
    with monkeypatch.context() as late:
        late.setattr(InferenceWorker, "pid", pid)  # not seen to be dead yet
        late.setattr(worker, "_kill", lambda: (late.undo(), worker._kill()))
        assert worker.ecg(recording).beats.sample
    assert worker.pid not in (None, pid)


def test_a_process_killed_in_the_middle_is_replaced_and_the_caller_told(
    worker: InferenceWorker, make_ecg: MakeEcg
) -> None:
    recording = make_ecg(beats_at(np.arange(0.5, 9.5, 0.8), 10.0))
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # so that the request is surely in it
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ModelError, match="ended by itself") as caught:
        worker.ecg(recording)
    assert not isinstance(caught.value, InferenceTimeoutError)
    assert worker.ecg(recording).beats.sample


@pytest.mark.parametrize("seconds", [10, 1200])
def test_a_process_that_hangs_is_killed_at_the_deadline(models: Models, make_ecg: MakeEcg, seconds: int) -> None:
    """Long recordings fill the pipe: then it is the sending that hangs."""
    recording = make_ecg(beats_at(np.arange(0.5, 9.5, 0.8), float(seconds)))
    with InferenceWorker(WorkerSettings(roots=models.roots), deadline_s=1.0) as worker:
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(InferenceTimeoutError, match="no answer within 1 s"):
            worker.ecg(recording)
        assert time.monotonic() - start < 1.0 + 3.0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert worker.pid not in (None, pid)


def test_closing_ends_the_process(models: Models) -> None:
    worker = InferenceWorker(WorkerSettings(roots=models.roots))
    worker.start()
    pid = worker.pid
    assert pid is not None
    worker.close()
    assert worker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_requests_from_several_threads_each_get_their_own_answer(worker: InferenceWorker, make_ecg: MakeEcg) -> None:
    recordings = [make_ecg(beats_at(np.arange(0.5, 9.5, rr), 10.0)) for rr in (0.5, 0.8, 1.1)]
    answers: dict[int, object] = {}
    threads = [threading.Thread(target=lambda i=i: answers.update({i: worker.ecg(recordings[i]).id})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: recording.id for i, recording in enumerate(recordings)}
