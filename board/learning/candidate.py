"""A head that a round made, on its way to devices: golden recordings, reviewed cases, shadow, then a model to sign.

It never serves by itself. What passes everything is written as a new version of the model's folder, which a person
signs and publishes to a share of the devices like any model (`aidpost board update publish`); each device proves it on
its own board before it serves, and it can be rolled back.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from aidpost.board import teach
from aidpost.errors import AidpostError, UnreadableInputError, UpdateRefusedError
from aidpost.inference import _golden
from aidpost.inference.cases import collect, label_number
from aidpost.inference.head import Head
from aidpost.inference.judge import LEAST_CASES, MARGIN, Judged, Verdict, judge
from aidpost.inference.model import SHARED, Model, load_model
from aidpost.sync import rounds as wire
from aidpost.sync._durable import make_folder
from aidpost.sync.hub import candidates, rounds
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database

__all__ = ["export", "judge_round"]


def judge_round(
    config: HubConfig,
    serves: Model,
    folder: Path,
    which: str,
    *,
    shadow: bool = False,
    least: int = LEAST_CASES,
    margin: float = MARGIN,
) -> Verdict:
    """Judge the head of a round, and note what it came to.

    Parameters
    ----------
    serves
        The model that serves now, from `folder`.
    shadow
        On exams that began after the round had ended, which no answer has learned from: the candidate has seen them in
        silence, and what it would have said is compared with what clinicians said since. Else on all reviewed exams.

    Raises
    ------
    UpdateRefusedError
        The round made no head, it is of another network, or it must pass something else first.
    """
    database = Database(config.url)
    try:
        with database.read() as connection:
            row = rounds.find(connection, which)
            head = _head(row, serves)
            if shadow and row.candidate not in ("passed", "shadowed"):
                raise _refused(which, f"it is {row.candidate}", "Judge it without --shadow first.")
            found = list(candidates.reviewed(connection, row.ended_ms if shadow else None))
        judged = _judged(serves, BlobFiles(config.blobs), found)
        verdict = judge(serves, head, judged, least=least, margin=margin)
        if wrong := _golden_faults(folder, serves, head):
            verdict = msgspec.structs.replace(verdict, reasons=(*wrong, *verdict.reasons))
        state = ("shadowed" if shadow else "passed") if verdict.passed else "failed"
        said = "; ".join(verdict.reasons) or f"{len(judged.cases)} cases, margin {margin:g}"
        with database.write() as connection:
            content = msgspec.json.encode(verdict).decode()
            candidates.settle(connection, row.id, state, content, said, "command-line")
    finally:
        database.close()
    return verdict


def export(config: HubConfig, folder: Path, which: str, release: str, out: Path) -> Path:
    """Write the model with the round's head, as `NAME-RELEASE.tar` to be signed and published; gives its path.

    Raises
    ------
    UpdateRefusedError
        The candidate has not passed its shadow, or the release is not newer than the model that serves.
    """
    serves = load_model(folder)
    database = Database(config.url)
    try:
        with database.read() as connection:
            row = rounds.find(connection, which)
            head = _head(row, serves)
            if row.candidate not in ("shadowed", "exported"):
                raise _refused(which, f"as a candidate it is {row.candidate}", "Judge it, then judge it with --shadow.")
            made_by = candidates.lineage(connection, row)
        newer = tuple(map(int, release.split("."))) if re.fullmatch(r"\d+(\.\d+)*", release) else ()
        if newer <= serves.card.version_key:
            raise _refused(which, f"{release!r} is not newer than {serves.card.version}", "Give a higher --release.")
        made = _write(folder, serves, head, release, made_by, row.verdict, out)
        with database.write() as connection:
            candidates.settle(connection, row.id, "exported", row.verdict, made.name, "command-line")
    finally:
        database.close()
    return made


def _head(row: Any, serves: Model) -> Head:
    if row.head is None:
        raise _refused(
            f"{row.model}/{row.number}", f"the round is {row.state} and made no head", "Choose another round."
        )
    if (row.model, row.base) != (serves.card.name, serves.card.network):
        raise _refused(f"{row.model}/{row.number}", "it is of another network than the model here", "Open a new round.")
    call = rounds.call_of(row)
    weights = wire.to_floats(bytes(row.head)).reshape(call.rows, call.columns).astype(np.float32)
    return Head(row.model, row.base, weights, f"round {row.number}")


def _refused(which: str, cause: str, remedy: str) -> UpdateRefusedError:
    return UpdateRefusedError(operation="judging a candidate", target=which, cause=cause, remedy=remedy)


def _judged(model: Model, files: BlobFiles, found: list[candidates.Reviewed]) -> Judged:
    """The reviewed recordings as cases; what is not whole at the hub, or cannot be read, is left out."""

    def read(sha256: str) -> bytes:
        if not files.is_complete(sha256):
            raise UnreadableInputError(
                operation="reading a recording", target=sha256[:16], cause="it is not whole here"
            )
        return files.path(sha256).read_bytes()

    examples, labels, patients = [], [], []
    groups: dict[str, list[str]] = {name: [] for name in ("clinic", "camera", "sex", "age")}
    for one in found:
        for label, camera, make in teach.graded(model, read, one.report, one.grades):
            number = label_number(model, label)
            if number is None:
                continue
            try:
                examples.append(make())
            except AidpostError:
                continue
            labels.append(number)
            patients.append(one.report.patient.id)
            named = {"clinic": one.clinic, "camera": camera, "sex": one.sex, "age": _age(one)}
            for group, name in named.items():
                groups[group].append(name)
    return Judged(collect(examples, labels, patients), groups)


def _age(one: candidates.Reviewed) -> str:
    if one.born is None:
        return "unknown"
    age = datetime.fromtimestamp(one.started_ms / 1000, timezone.utc).year - one.born
    return "under 40" if age < 40 else "40 to 59" if age < 60 else "60 and over"


def _with(serves: Model, head: Head) -> Model:
    return Model(serves.card, serves.interpreter, serves.basis, head)


def _golden_faults(folder: Path, serves: Model, head: Head) -> list[str]:
    """Golden recordings that the candidate names otherwise than the model does whose they are."""
    before = _golden.answers(folder / "golden.npz", serves)
    after = _golden.answers(folder / "golden.npz", _with(serves, head))
    labels = serves.card.output.labels
    return [
        f"golden recording {i} becomes {labels[int(new.argmax())]}, and is {labels[int(old.argmax())]}"
        for i, (old, new) in enumerate(zip(before, after, strict=True))
        if old.argmax() != new.argmax()
    ]


def _write(
    folder: Path, serves: Model, head: Head, release: str, made_by: tuple[str, ...], verdict: str, out: Path
) -> Path:
    work = out / f".{serves.card.name}.part"
    shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    made = work / serves.card.name
    shutil.copytree(folder, made)
    content = head.to_bytes()
    (made / SHARED).write_bytes(content)
    card = made / "card.toml"
    card.write_text(_card_text(card.read_text(encoding="utf-8"), release, content, made_by), encoding="utf-8")
    for_people = made / "CARD.md"
    text = for_people.read_text(encoding="utf-8") if for_people.exists() else ""
    for_people.write_text(text + _for_people(release, made_by, verdict), encoding="utf-8")
    _golden.write_answers(made / "golden.npz", _with(serves, head))
    load_model(made)  # it must pass what every device will hold it against
    path = out / f"{serves.card.name}-{release}.tar"
    with tarfile.open(path.with_suffix(".part"), "w") as archive:
        for one in sorted(made.iterdir()):
            archive.add(one, one.name)
    path.with_suffix(".part").replace(path)
    shutil.rmtree(work)
    return path


def _card_text(text: str, release: str, content: bytes, made_by: tuple[str, ...]) -> str:
    text = re.sub(r"(?ms)^\[head\]\n.*?(?=^\[|\Z)", "", text)
    text = re.sub(r'(?m)^version = ".*"$', f'version = "{release}"', text, count=1)
    names = ", ".join(f'"{one}"' for one in made_by)
    return f'{text.rstrip()}\n\n[head]\nsha256 = "{hashlib.sha256(content).hexdigest()}"\nrounds = [{names}]\n'


def _for_people(release: str, made_by: tuple[str, ...], verdict: str) -> str:
    found = msgspec.json.decode(verdict, type=Verdict)
    lines = [f"\n## {release}: a head that clinics taught together\n", "Rounds, the first one first:\n"]
    lines += [f"- {one}" for one in made_by]
    lines += ["", "In shadow, on exams made after the last round (mean loss by patient, accuracy of the call):", ""]
    lines += ["| group | cases | loss before | loss | accuracy before | accuracy |", "|---|---|---|---|---|---|"]
    lines += [_line(row) for row in found.rows]
    return "\n".join(lines) + "\n"


def _line(row: Any) -> str:
    numbers = (row.loss_before, row.loss_after, row.accuracy_before, row.accuracy_after)
    return f"| {row.group} {row.name} | {row.cases} | {' | '.join(f'{one:.4f}' for one in numbers)} |"
