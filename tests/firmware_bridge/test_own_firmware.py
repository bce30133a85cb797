"""Aidpost's own board protocol: its vectors, and the C encoder against the Python decoder."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.decoders.base import Announcement, Block, Corrupt
from aidpost.firmware_bridge.decoders.own import (
    MAX_FRAME,
    OwnDecoder,
    cobs_decode,
    cobs_encode,
    encode_hello,
    encode_samples,
)
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.records import Origin, Timestamp

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware_bridge" / "firmware"
HELLO = encode_hello("bench", 250, ("I", "II"), (0.5, 1.25))


@pytest.mark.parametrize(
    ("plain", "stuffed"),
    # the examples of Cheshire and Baker's algorithm as Wikipedia's article on COBS lists them
    [("00", "0101"), ("0000", "010101"), ("00110 0".replace(" ", ""), "01021101"), ("11220033", "0311220233"),
     ("11223344", "0511223344"), ("11000000", "0211010101")],
)  # fmt: skip
def test_cobs_vectors(plain: str, stuffed: str) -> None:
    assert cobs_encode(bytes.fromhex(plain)).hex() == stuffed
    assert cobs_decode(bytes.fromhex(stuffed)) == bytes.fromhex(plain)


def test_cobs_of_254_bytes_without_a_zero() -> None:
    run = bytes(range(1, 255))
    assert cobs_encode(run)[:2] == b"\xff\x01"
    assert cobs_decode(b"\xff" + run) == run


@given(st.binary(max_size=700))
def test_cobs_round_trips_and_has_no_zero(data: bytes) -> None:
    stuffed = cobs_encode(data)
    assert b"\0" not in stuffed
    assert cobs_decode(stuffed) == data


def test_the_documented_vectors() -> None:
    text = (FIRMWARE.parents[1] / "docs" / "sensors" / "own-firmware.md").read_text()
    assert HELLO.hex(" ").upper() in text
    assert encode_samples(1000, [(1, -1), (2, -2)], off=2).hex(" ").upper() in text


def test_a_hello_announces_and_samples_follow() -> None:
    items = OwnDecoder().feed(HELLO + encode_samples(7, [(1, -1), (8388607, -8388608)], off=2))
    assert items == [
        Announcement("bench", 250.0, ("I", "II"), (0.5, 1.25)),
        Block(((1, -1), (8388607, -8388608)), off=(1,)),
    ]


def test_the_sample_counter_tells_what_is_lost_also_when_it_wraps() -> None:
    decoder = OwnDecoder()
    items = [i for n in (2**32 - 4, 2**32 - 2, 6) for i in decoder.feed(encode_samples(n, [(n & 7, 0), (0, 0)]))]
    assert [item.lost for item in items if isinstance(item, Block)] == [0, 0, 6]


def test_a_repeated_packet_brings_no_sample_twice() -> None:
    packet = encode_samples(100, [(1,), (2,)])
    items = OwnDecoder().feed(packet + packet + encode_samples(102, [(3,)]))
    assert [sample for item in items if isinstance(item, Block) for sample in item.samples] == [(1,), (2,), (3,)]
    assert sum(item.lost for item in items if isinstance(item, Block)) == 0


@pytest.mark.parametrize("size", [1, 3, 50])
def test_a_corrupted_frame_costs_itself_only(size: int) -> None:
    frames = [HELLO, *(encode_samples(n, [(n, n)]) for n in range(20))]
    frames[5] = frames[5][:3] + bytes([frames[5][3] ^ 1 or 2]) + frames[5][4:]
    stream, decoder, items = b"".join(frames), OwnDecoder(), []
    for start in range(0, len(stream), size):
        items += decoder.feed(stream[start : start + size])
    blocks = [item for item in items if isinstance(item, Block)]
    assert len(blocks) == 19
    assert sum(block.lost for block in blocks) == 1
    assert sum(isinstance(item, Corrupt) for item in items) == 1


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_leave_the_decoder_bounded_and_working(data: bytes) -> None:
    decoder = OwnDecoder()
    for _ in range(3):
        decoder.feed(data)
        assert len(decoder._buffer) <= MAX_FRAME
    assert decoder.feed(b"\0" + encode_samples(0, [(5,)]))[-1].samples in (((5,),), ())  # type: ignore[union-attr]


def test_rate_leads_and_scale_of_the_recording_are_the_boards() -> None:
    assembler = EcgAssembler(BOARDS["aidpost"], SourceSpec("serial", "x"), seconds=2)
    decoder = OwnDecoder()
    early = encode_samples(0, [(9, 9)])  # not yet announced: what a count is worth is unknown
    hello = encode_hello("bench", 500, ("I", "II"), (0.5, 1.25))
    assembler.add(decoder.feed(early + hello + b"".join(encode_samples(n, [(n, -n)]) for n in range(1, 1500))))
    recording = assembler.recording(
        at=Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=False), origin=Origin.LIVE, source="x"
    )
    assert (recording.fs_hz, recording.leads, recording.lsb_mv) == (500, ("I", "II"), (0.0005, 0.00125))
    assert recording.samples.shape == (2, 1000)
    assert recording.device.name == "bench"


MAIN = r"""
#include <stdio.h>
#include "aidpost_frame.h"
int main(void)
{
    static const aidpost_channel channel[] = {{"I", 500000}, {"II", 1250000}};
    const aidpost_board board = {"bench", 250000, 2, channel};
    uint8_t frame[AIDPOST_MAX_FRAME];
    int32_t samples[80];
    size_t length = aidpost_hello(frame, sizeof frame, &board);
    fwrite(frame, 1, length, stdout);
    for (uint32_t first = 0; first < 4000; first += 40) {
        for (uint32_t n = 0; n < 40; n++) {
            samples[2 * n] = (int32_t)((first + n) * 2654435761u) >> 8;
            samples[2 * n + 1] = -(int32_t)(first + n);
        }
        length = aidpost_samples(frame, sizeof frame, first, (uint16_t)(first == 80), 40, 2, samples);
        fwrite(frame, 1, length, stdout);
    }
    if (aidpost_samples(frame, 20, 0, 0, 40, 2, samples))
        return 1;
    return aidpost_samples(frame, sizeof frame, 0, 0, 255, 16, samples) != 0;
}
"""
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", f"-I{FIRMWARE}"]


def test_the_c_encoder_makes_what_the_python_decoder_reads(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "a C compiler is needed to build the kernels as well"
    (tmp_path / "main.c").write_text(MAIN)
    sources = [str(tmp_path / "main.c"), str(FIRMWARE / "aidpost_frame.c")]
    subprocess.run([compiler, *FLAGS, *sources, "-o", str(tmp_path / "board")], check=True)
    stream = subprocess.run([str(tmp_path / "board")], check=True, capture_output=True).stdout
    assert stream.startswith(HELLO)
    items = OwnDecoder().feed(stream)
    assert isinstance(items[0], Announcement)
    blocks = [item for item in items[1:] if isinstance(item, Block)]
    assert len(blocks) == len(items) - 1 == 100
    assert sum(block.lost for block in blocks) == 0
    assert [block.off for block in blocks[:4]] == [(), (), (0,), ()]
    expected = [(struct.unpack("<i", struct.pack("<I", n * 2654435761 & 0xFFFFFFFF))[0] >> 8, -n) for n in range(4000)]
    assert [sample for block in blocks for sample in block.samples] == expected


def test_the_c_encoder_compiles_for_cortex_m(tmp_path: Path) -> None:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("arm-none-eabi-gcc is not installed (Debian package gcc-arm-none-eabi)")
    target = ["-mcpu=cortex-m0plus", "-mthumb", "-Os", "-ffreestanding"]
    out = tmp_path / "frame.o"
    subprocess.run([compiler, *target, *FLAGS, "-c", str(FIRMWARE / "aidpost_frame.c"), "-o", str(out)], check=True)
    assert out.stat().st_size > 0
