"""The write: whatever is cut at whatever moment, a card that is not finished never looks finished."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from card_images import BOOKWORM, MIB, SIZE, boot_file, make_card, make_image, packed
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.board.flash.card import Card
from aidpost.board.flash.first_boot import FirstBoot, new_nonce
from aidpost.board.flash.image import Image, inspect
from aidpost.board.flash.plan import load, make_plan, run, run_job, save
from aidpost.board.flash.writer import FIRST, Progress, write
from aidpost.errors import DeviceError, DeviceNotFoundError, UnreadableInputError, UsageError


def proven(path: Path, **more: Any) -> Image:
    return inspect(path, file_sha256=hashlib.sha256(path.read_bytes()).hexdigest(), **more)


class PowerCut(Exception):
    pass


class CuttableCard(Card):
    """A card with a cache of its own: what was not synced may be there after a cut or not, each sector by itself."""

    def __init__(self, path: Path, cut_at: int | None, seed: int = 0) -> None:
        super().__init__(path)
        self.operations, self._cut_at, self._random = 0, cut_at, random.Random(seed)
        self._cache: list[tuple[int, bytes]] = []

    def _count(self) -> None:
        self.operations += 1
        if self.operations == self._cut_at:
            for at, data in self._cache:
                for sector in range(0, len(data), 512):
                    if self._random.random() < 0.5:
                        super().write(at + sector, data[sector : sector + 512])
            raise PowerCut

    def write(self, at: int, data: bytes | memoryview) -> None:
        self._cache.append((at, bytes(data)))
        self._count()

    def sync(self) -> None:
        self._count()
        for at, data in self._cache:
            super().write(at, data)
        self._cache.clear()
        super().sync()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "os.img")


@pytest.mark.parametrize("kind", ["raw", "xz", "zst", "gz", "zip"])
def test_the_card_holds_the_image_and_the_rest_of_it_is_untouched(kind: str, image: Path, tmp_path: Path) -> None:
    source = tmp_path / "os.img"
    source.write_bytes(image.read_bytes())
    target = make_card(tmp_path / "card")
    before = target.read_bytes()
    said: list[Progress] = []
    card = Card(target)
    write(proven(packed(source, kind)), card, {}, said.append)
    card.close()
    after = target.read_bytes()
    assert after[:SIZE] == image.read_bytes()
    assert after[SIZE:] == before[SIZE:]
    steps = list(dict.fromkeys(progress.step for progress in said))
    assert steps == ["wipe", "write", "compare", "first-block", "done"]
    assert all(0 <= progress.done <= progress.total for progress in said)


def test_a_power_cut_at_any_operation_leaves_a_card_that_does_not_look_finished(image: Path, tmp_path: Path) -> None:
    facts, wanted = proven(image), image.read_bytes()
    old = make_card(tmp_path / "card").read_bytes()
    count = CuttableCard(tmp_path / "card", None)
    write(facts, count, {})
    count.close()
    for cut_at in range(1, count.operations + 1):
        for seed in range(3):
            (tmp_path / "card").write_bytes(old)
            card = CuttableCard(tmp_path / "card", cut_at, seed)
            with pytest.raises(PowerCut):
                write(facts, card, {})
            os.close(card._fd)
            found = (tmp_path / "card").read_bytes()
            if found[:512] == wanted[:512]:
                assert found[FIRST:SIZE] == wanted[FIRST:SIZE], f"cut at operation {cut_at}"
            elif found[:512] == old[:512]:
                assert found[FIRST:] == old[FIRST:], f"an old table over new content: operation {cut_at}"
            else:
                assert found[510:512] == bytes(2)
    again = Card(tmp_path / "card")
    write(facts, again, {})
    again.close()
    assert (tmp_path / "card").read_bytes()[:SIZE] == wanted


class WornCard(Card):
    """Gives back one wrong bit."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path)
        self._at = at

    def read(self, at: int, size: int) -> bytes:
        content = bytearray(super().read(at, size))
        if at <= self._at < at + size:
            content[self._at - at] ^= 16
        return bytes(content)


@settings(max_examples=15)
@given(st.integers(0, SIZE - 1))
def test_one_wrong_bit_anywhere_is_found_by_reading_back(
    image: Path, tmp_path_factory: pytest.TempPathFactory, at: int
) -> None:
    target = make_card(tmp_path_factory.mktemp("worn") / "card")
    card = WornCard(target, at)
    with pytest.raises(DeviceError, match="does not give back"):
        write(proven(image), card, {})
    card.close()
    if at >= FIRST:
        assert target.read_bytes()[:FIRST] == bytes(FIRST)


def test_an_image_that_changes_after_it_was_checked_gets_no_partition_table(image: Path, tmp_path: Path) -> None:
    source = tmp_path / "os.img"
    source.write_bytes(image.read_bytes())
    facts = proven(source)
    with source.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"changed")
    target = make_card(tmp_path / "card")
    card = Card(target)
    with pytest.raises(UnreadableInputError, match="changed since"):
        write(facts, card, {})
    card.close()
    assert target.read_bytes()[:FIRST] == bytes(FIRST)


def bmap_of(content: bytes, ranges: list[tuple[int, int]]) -> str:
    """A block map as bmaptool writes it (its own is read in test_image.py)."""
    lines = "".join(
        f'<Range chksum="{hashlib.sha256(content[a * 4096 : (b + 1) * 4096]).hexdigest()}"> {a}-{b} </Range>'
        for a, b in ranges
    )
    text = (
        f'<?xml version="1.0" ?>\n<bmap version="2.0"><ImageSize> {len(content)} </ImageSize>'
        "<BlockSize> 4096 </BlockSize>"
        f"<ChecksumType> sha256 </ChecksumType><BmapFileChecksum> {'0' * 64} </BmapFileChecksum>"
        f"<BlockMap>{lines}</BlockMap></bmap>"
    )
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest())


def test_with_a_block_map_only_what_it_names_is_written_and_compared(image: Path, tmp_path: Path) -> None:
    content, target = image.read_bytes(), make_card(tmp_path / "card")
    before = target.read_bytes()
    ranges = [(0, 100), (256, 300), (700, 900)]
    (tmp_path / "a.bmap").write_text(bmap_of(content, ranges))
    card = Card(target)
    write(proven(image, bmap=tmp_path / "a.bmap"), card, {})
    card.close()
    after, mapped = target.read_bytes(), {block for a, b in ranges for block in range(a, b + 1)}
    for block in range(len(after) // 4096):
        expected = content if block in mapped else before
        assert after[block * 4096 : (block + 1) * 4096] == expected[block * 4096 : (block + 1) * 4096], block
    (tmp_path / "b.bmap").write_text(bmap_of(content[::-1], ranges))
    with pytest.raises(UnreadableInputError, match="block map"):
        proven(image, bmap=tmp_path / "b.bmap")


def told(**more: Any) -> FirstBoot:
    return FirstBoot(hostname="clinic7", hub="https://hub.example", token="secret-token", nonce=new_nonce(), **more)


def test_settings_are_on_the_card_and_read_back(image: Path, tmp_path: Path) -> None:
    target = make_card(tmp_path / "card")
    plan = make_plan(image, [(target, told())], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest())
    assert plan.mechanism == "custom-toml"
    (outcome,) = run(plan)
    assert outcome.written, outcome.error
    assert 'hostname = "clinic7"' in boot_file(target, "custom.toml")
    assert 'token = "secret-token"' in boot_file(target, "aidpost/setup.toml")
    assert boot_file(target, "config.txt") == BOOKWORM["config.txt"]
    assert target.read_bytes()[:512] == image.read_bytes()[:512]


def test_a_file_that_the_card_does_not_give_back_is_found(image: Path, tmp_path: Path) -> None:
    from aidpost.board.flash.fat import BootFiles

    class Forgetful(BootFiles):
        def read(self, name: str) -> bytes:
            return super().read(name)[:-1]

    target = make_card(tmp_path / "card")
    card = Card(target)
    with pytest.raises(DeviceError, match="reading the first boot's files back"):
        write(proven(image), card, {"custom.toml": b"config_version = 1\n"}, boot_files=Forgetful)
    card.close()
    assert target.read_bytes()[:FIRST] == bytes(FIRST)


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from aidpost.board.flash.plan import load, run_job
plan, wanted = load(Path(sys.argv[1])), int(sys.argv[2])
seen = 0
def report(progress):
    global seen
    seen += 1
    if seen == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
run_job(plan, plan.jobs[0], report)
print(seen)
"""


def test_killed_in_every_step_and_run_again_the_card_is_whole(image: Path, tmp_path: Path) -> None:
    target = make_card(tmp_path / "card")
    plan = make_plan(image, [(target, told())], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest())
    save(plan, tmp_path / "plan.json")
    number = 0
    while True:
        number += 1
        command = [sys.executable, "-c", _KILLED_AT, str(tmp_path / "plan.json"), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        if target.read_bytes()[510:512] == b"\x55\xaa":
            assert number == 1 or 'hostname = "clinic7"' in boot_file(target, "custom.toml")
    assert number >= 9  # wipe, write, compare, files, first block, done
    assert 'hostname = "clinic7"' in boot_file(target, "custom.toml")


def test_one_bad_card_stops_no_other(image: Path, tmp_path: Path) -> None:
    cards = [make_card(tmp_path / f"card{number}") for number in range(3)]
    plan = make_plan(
        image, [(card, None) for card in cards], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest()
    )
    make_card(cards[1], SIZE)  # another card by now
    good, bad, other = run(plan)
    assert good.written
    assert other.written
    assert not bad.written
    assert bad.error is not None
    assert "another disk is there now" in bad.error["message"]
    assert cards[2].read_bytes()[:SIZE] == image.read_bytes()


def test_a_saved_plan_refuses_another_disk_under_the_same_name(image: Path, tmp_path: Path) -> None:
    target = make_card(tmp_path / "card")
    save(
        make_plan(image, [(target, None)], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest()),
        tmp_path / "plan.json",
    )
    assert (tmp_path / "plan.json").stat().st_mode & 0o077 == 0
    plan = load(tmp_path / "plan.json")
    make_card(target, SIZE + 2 * MIB)
    before = target.read_bytes()
    with pytest.raises(DeviceNotFoundError, match="another disk"):
        run_job(plan, plan.jobs[0], lambda progress: None)
    assert target.read_bytes() == before


@pytest.mark.parametrize(("size", "cause"), [(SIZE - 512, "needs"), (0, "no card")])
def test_a_card_that_is_too_small_is_refused_untouched(size: int, cause: str, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "card"
    target.write_bytes(b"\1" * size)
    with pytest.raises(UsageError, match=cause):
        make_plan(image, [(target, None)], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest())
    assert target.read_bytes() == b"\1" * size


def test_the_image_itself_is_no_target(image: Path) -> None:
    with pytest.raises(UsageError, match="image itself"):
        make_plan(image, [(image, None)], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest())


AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]


def aidpost(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AIDPOST, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def test_the_command_line_plans_writes_and_says_what_is_not_confirmed(image: Path, tmp_path: Path) -> None:
    target, published = make_card(tmp_path / "card"), hashlib.sha256(image.read_bytes()).hexdigest()
    (tmp_path / "wifi").write_text("password\n")
    options: Mapping[str, object] = {
        "--sha256": published,
        "--hostname": "clinic7",
        "--wifi": "IEEE",
        "--wifi-password-file": tmp_path / "wifi",
        "--wifi-country": "UG",
        "--save": tmp_path / "plan.json",
    }
    flat = [word for pair in options.items() for word in pair]
    shown = aidpost("board", "flash", "plan", image, target, *flat)
    assert shown.returncode == 0, shown.stderr
    assert "ALL OF IT IS ERASED" in shown.stdout
    assert "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e" not in shown.stdout
    done = aidpost("board", "flash", "run", tmp_path / "plan.json", "--yes", "--jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["state"] == "written, not confirmed"
    # the pre-shared key of IEEE 802.11i's own example
    psk = "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert psk in boot_file(target, "custom.toml")
    assert "password\n" not in (tmp_path / "plan.json").read_text()
    early = aidpost("board", "flash", "confirm", tmp_path / "plan.json", "--card", target)
    assert early.returncode == 1
    assert "has not come to its end" in early.stderr
    refused = aidpost("board", "flash", "write", image, target, "--yes")
    assert refused.returncode == 2
    assert "nothing vouches" in refused.stderr
