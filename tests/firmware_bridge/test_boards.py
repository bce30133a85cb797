"""Serial boards: their frames, and one contract for all over transports that cut, lose, repeat and corrupt."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import UnreadableInputError, UsageError
from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.calibration import uv_per_count
from aidpost.firmware_bridge.clock import SystemClock
from aidpost.firmware_bridge.decoders.ad8232 import Ad8232Decoder
from aidpost.firmware_bridge.decoders.base import MAX_GARBAGE, Block, Corrupt
from aidpost.firmware_bridge.decoders.bitalino import BitalinoDecoder, crc4, encode_bitalino, frame_bytes
from aidpost.firmware_bridge.decoders.cyton import CytonDecoder, encode_cyton
from aidpost.firmware_bridge.decoders.olimex import OlimexDecoder, encode_olimex
from aidpost.firmware_bridge.decoders.protocentral import ProtocentralDecoder, encode_frame, encode_healthypi4
from aidpost.firmware_bridge.sources import SourceSpec, open_source
from aidpost.records import Origin, Timestamp

AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True)

# What each board sends as its n-th frame when its first channel reads `count`
ENCODERS: dict[str, Callable[[int, int], bytes]] = {
    "healthypi4": lambda n, count: encode_healthypi4(count, respiration=5, spo2=98, rate=72),
    "healthypi5": lambda n, count: encode_frame(struct.pack("<iiBiihBBB", count, 0, 0, 9, 9, 3700, 97, 70, 15)),
    "healthypi6": lambda n, count: encode_frame(struct.pack("<3i", count, 1, 2).ljust(31, b"\1"), 2),
    "ads1292r": lambda n, count: encode_frame(struct.pack("<hhHHB", count, -50, 16, 72, 0)),
    "ads1293": lambda n, count: encode_frame(struct.pack("<3i", count, 1, 2)),
    "max30003": lambda n, count: encode_frame(struct.pack("<3i", count, 800, 75)),
    "max30001": lambda n, count: encode_frame(struct.pack("<iiB", count, 7, 0)),
    "cyton": lambda n, count: encode_cyton(n, (count, 0, 0, 0, 0, 0, 0, 0)),
    "bitalino": lambda n, count: encode_bitalino(n, (count & 0x3FF,)),
    "olimex": lambda n, count: encode_olimex(n, (count & 0x3FF, 0, 0, 0, 0, 0)),
    "ad8232": lambda n, count: b"%d\r\n" % (count & 0x3FF),
}
boards = pytest.mark.parametrize("board", ENCODERS)


def stream(board: str, count: int) -> list[bytes]:
    return [ENCODERS[board](n, 100 + n) for n in range(count)]


def feed(board: str, data: bytes, size: int | None = None) -> list[Block | Corrupt]:
    decoder = BOARDS[board].decoder()
    size = size or len(data) or 1
    return [item for start in range(0, len(data), size) for item in decoder.feed(data[start : start + size])]


def counts(items: list[Block | Corrupt]) -> list[int]:
    return [sample[0] for item in items if isinstance(item, Block) for sample in item.samples]


# ---- the frames themselves


def test_healthypi4_frame() -> None:
    frame = bytes.fromhex("0AFA140002 6400 CEFF 10270000 204E0000 740E 10 62 48 50 78 00 000B")
    (block,) = ProtocentralDecoder("healthypi4").feed(frame)
    assert isinstance(block, Block)
    assert (block.samples, block.off) == (((100, -50),), ())
    readings = dict(block.readings)
    assert readings == {
        "temperature_cel": 37.0, "respiratory_rate_per_min": 16, "spo2_percent": 98, "heart_rate_per_min": 72
    }  # fmt: skip
    # trap: bytes 17 and 18 are the constants 80 and 120, and no blood pressure
    assert 80 not in readings.values()
    assert 120 not in readings.values()


def test_healthypi4_contact_bits_are_states_not_numbers() -> None:
    (block,) = ProtocentralDecoder("healthypi4").feed(encode_healthypi4(7, spo2=98, rate=72, status=3))
    assert isinstance(block, Block)
    assert block.off == (0, 1)
    assert dict(block.readings)["spo2_percent"] is None
    assert dict(block.readings)["heart_rate_per_min"] is None


def test_healthypi5_spo2_of_25_means_no_finger() -> None:
    payload = struct.pack("<iiBiihBBB", 1, 0, 0, 9, 9, 3700, 25, 70, 15)
    (block,) = ProtocentralDecoder("healthypi5").feed(encode_frame(payload))
    assert isinstance(block, Block)
    assert dict(block.readings)["spo2_percent"] is None


def test_healthypi5_ov3_brings_eight_samples() -> None:
    payload = struct.pack("<12iBB", *range(12), 70, 15)
    (block,) = ProtocentralDecoder("healthypi5").feed(encode_frame(payload, 3))
    assert isinstance(block, Block)
    assert block.samples == tuple((n,) for n in range(8))


def test_ads1292r_frame_has_respiration_before_heart_rate() -> None:
    (block,) = ProtocentralDecoder("ads1292r").feed(bytes.fromhex("0AFA090002 6400 CEFF 1000 4800 00 000B"))
    assert isinstance(block, Block)
    assert (block.samples, dict(block.readings)) == (
        ((100, -50),),
        {"respiratory_rate_per_min": 16, "heart_rate_per_min": 72},
    )


def test_protocentral_header_inside_a_payload_does_not_mislead() -> None:
    inner = encode_healthypi4(struct.unpack("<h", b"\x0a\xfa")[0])
    items = ProtocentralDecoder("healthypi4").feed(inner * 3)
    assert [type(item) for item in items] == [Block] * 3


def test_cyton_frame_of_openbcis_own_test() -> None:
    text = "A0 45 000001 000002 000003 000004 000005 000006 000007 000008 0000 0001 0002 C0"
    (block,) = CytonDecoder().feed(bytes.fromhex(text))
    assert isinstance(block, Block)
    assert block.samples == ((1, 2, 3, 4, 5, 6, 7, 8),)
    assert BOARDS["cyton"].uv_per_count == pytest.approx(0.02235174)
    assert [value for _, value in block.readings] == [0.0, 0.000125, 0.00025]


@pytest.mark.parametrize(
    ("word", "count"), [("000690", 1680), ("02C001", 180225), ("FFFFFF", -1), ("81A101", -8281855)]
)
def test_cyton_24_bit_numbers_are_signed_and_big_endian(word: str, count: int) -> None:
    (block,) = CytonDecoder().feed(bytes.fromhex("A000" + word + "00" * 27 + "C0"))
    assert isinstance(block, Block)
    assert block.samples[0][0] == count


@pytest.mark.parametrize("word", ["7FFFFF", "800000"])
def test_cyton_railed_is_a_state_not_a_number(word: str) -> None:
    (block,) = CytonDecoder().feed(bytes.fromhex("A000" + word + "00" * 27 + "C0"))
    assert isinstance(block, Block)
    assert block.off == (0,)


def test_bitalino_frames() -> None:
    six, one = bytes.fromhex("4641C000020410F0"), bytes.fromhex("00A85D")
    assert [crc4(six), crc4(one)] == [0x0, 0xD]
    assert encode_bitalino(5, (512,), 0b1010) == one
    assert encode_bitalino(15, (1, 2, 3, 4, 5, 6), 0b0001) == six
    items = BitalinoDecoder(6).feed(six + encode_bitalino(0, (1023, 0, 1023, 0, 63, 1)))
    items += BitalinoDecoder(1).feed(one + encode_bitalino(6, (512,)))
    samples = [sample for item in items if isinstance(item, Block) for sample in item.samples]
    assert samples == [(1, 2, 3, 4, 5, 6), (1023, 0, 1023, 0, 63, 1), (512,), (512,)]
    assert [frame_bytes(n) for n in range(1, 7)] == [3, 4, 6, 7, 8, 8]


def test_olimex_idle_packet_of_its_firmware() -> None:
    (block,) = OlimexDecoder().feed(bytes.fromhex("A55A0200 0200 0200 0200 0200 0200 0200 01"))
    assert isinstance(block, Block)
    assert block.samples == ((512,) * 6,)


def test_ad8232_lines_and_lead_off() -> None:
    items = Ad8232Decoder().feed(b"12\r\n512\n!\n513\nabc\n70000\n")
    assert counts(items) == [12, 512, 512, 513]
    assert [i.off for i in items if isinstance(i, Block)] == [(), (), (0,), ()]
    assert sum(isinstance(i, Corrupt) for i in items) == 2


def test_ad8232_with_its_own_time_counts_what_is_missing() -> None:
    items = Ad8232Decoder(period_us=4000).feed(b"4294965296,1,0\n2000,2,0\n14000,3,1\n")
    assert [i.lost for i in items if isinstance(i, Block)] == [0, 0, 2]
    assert [i.off for i in items if isinstance(i, Block)] == [(), (), (0,)]


# ---- one contract for all


@boards
def test_every_frame_arrives_once_and_in_order(board: str) -> None:
    items = feed(board, b"".join(stream(board, 40)))
    if board == "bitalino":
        assert counts(items) == [100 + n for n in range(40)]
    assert counts(items)[:30] == [100 + n for n in range(30)]
    assert not any(isinstance(item, Corrupt) for item in items)


@boards
@pytest.mark.parametrize("size", [1, 2, 7, 33, 1000])
def test_the_cut_of_the_stream_makes_no_difference(board: str, size: int) -> None:
    frames = stream(board, 30)
    data = (
        b"\x0a\xfa\x14"
        + b"".join(frames[:9])
        + b"rubbish\xa0\xa5"
        + b"".join(frames[9:20])
        + b"\x0a"
        + b"".join(frames[20:])
    )
    assert feed(board, data, size) == feed(board, data)


@boards
def test_a_lost_frame_is_counted(board: str) -> None:
    frames = stream(board, 60)
    if BOARDS[board].modulus:
        items = feed(board, b"".join(frames[:20] + frames[23:]))
        assert sum(item.lost for item in items if isinstance(item, Block)) == 3
    elif board != "ad8232":  # unnumbered: told from the piece that is left of the frame
        items = feed(board, b"".join([*frames[:20], frames[20][:9], *frames[21:]]))
        assert sum(item.lost for item in items if isinstance(item, Block)) in (1, 2)
        assert counts(items)[:20] == [100 + n for n in range(20)]
        assert counts(items)[-30:] == [130 + n for n in range(30)]


@boards
def test_a_corrupted_byte_costs_at_most_two_frames_and_is_reported(board: str) -> None:
    frames = stream(board, 60)
    bad = bytearray(frames[30])
    # a byte whose damage the board's frame can show: its start, or what its checksum covers
    bad[0] ^= 0x5A
    items = feed(board, b"".join([*frames[:30], bytes(bad), *frames[31:]]))
    found = counts(items)
    assert found[:30] == [100 + n for n in range(30)]
    assert len(found) >= 58
    assert sum(item.lost for item in items if isinstance(item, Block)) + len(found) in range(59, 62)
    assert any(isinstance(item, Corrupt) for item in items) or board == "ad8232"


@pytest.mark.parametrize("board", [name for name in ENCODERS if BOARDS[name].modulus])
def test_a_repeated_frame_counts_once(board: str) -> None:
    frames = stream(board, 10)
    items = feed(board, b"".join([*frames[:5], frames[4], *frames[5:]]))
    assert counts(items) == [100 + n for n in range(10)]
    assert sum(item.lost for item in items if isinstance(item, Block)) == 0


@boards
def test_rubbish_is_reported_and_never_kept(board: str) -> None:
    decoder = BOARDS[board].decoder()
    dropped = 0
    for filler in (b"\xee", b"\x0a\xfa", b"\xa0", b"\xa5\x5a", b"\x00"):
        for _ in range(25):
            dropped += sum(i.dropped for i in decoder.feed(filler * 2000) if isinstance(i, Corrupt))
            assert len(decoder._buffer) < 600  # type: ignore[attr-defined]
    assert dropped > MAX_GARBAGE or board == "bitalino"


@boards
@given(data=st.binary(max_size=400), start=st.integers(0, 30))
def test_arbitrary_bytes_never_raise_and_frames_after_them_are_found(board: str, data: bytes, start: int) -> None:
    frames = stream(board, 60)
    tail = b"".join(frames[start:])
    found = counts(feed(board, data + (b"\n" if board == "ad8232" else b"") + tail))
    assert found[-20:] == [100 + n for n in range(40, 60)]


@boards
def test_what_is_lost_has_its_place_in_the_recording(board: str) -> None:
    frames, period = stream(board, 500), 1 / BOARDS[board].fs_hz
    assembler = EcgAssembler(BOARDS[board], SourceSpec("serial", "x", (("uv_per_count", "5"),)), seconds=40)
    decoder = BOARDS[board].decoder()
    for n, frame in enumerate(frames):
        if not 200 <= n < 200 + round(0.4 / period):
            assembler.add(decoder.feed(frame), n * period)
    # flush a decoder that looks one frame ahead
    recording = assembler.recording(at=AT, origin=Origin.LIVE, source="x")
    lost = sum(stop - start for start, stop in recording.missing)
    gone = min(round(0.4 / period), 300)
    if 200 + gone < 500:
        assert lost == pytest.approx(gone, abs=2)
        assert recording.samples.shape[1] == pytest.approx(500, abs=3)
    assert np.isnan(recording.millivolts(0)[[start for start, _ in recording.missing]]).all()


def test_gain_and_scale_are_the_sites_to_set() -> None:
    def lsb(**options: str) -> float:
        spec = SourceSpec("serial", "x", tuple(options.items()))
        assembler = EcgAssembler(BOARDS["healthypi4"], spec, seconds=1)
        assembler.add(feed("healthypi4", encode_healthypi4(1)))
        return assembler.recording(at=AT, origin=Origin.LIVE, source="x").lsb_mv[0]

    assert lsb() == pytest.approx(0.01231)
    assert lsb(gain="12") == pytest.approx(0.006155)
    assert lsb(uv_per_count="10") == pytest.approx(0.01)


@pytest.mark.parametrize("board", ["olimex", "ads1293", "healthypi6"])
def test_a_scale_that_nobody_knows_is_asked_for_and_never_guessed(board: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not known"):
        open_source(f"serial:/dev/ttyACM0?device={board}", clock=SystemClock(1))
    (tmp_path / "raw").write_bytes(b"".join(stream(board, 30)))
    with pytest.raises(UsageError, match="1 mV"):
        open_source(f"replay:{tmp_path}/raw?device={board}", clock=SystemClock(1))
    open_source(f"replay:{tmp_path}/raw?device={board}&uv_per_count=5", clock=SystemClock(1)).read_ecg()


@pytest.mark.parametrize("rate_hz", [0.5, 1.2])
def test_a_1_mv_square_wave_calibrates(rate_hz: float) -> None:
    time = np.arange(2500) / 250
    counts = 400 + 81 * (np.sin(2 * np.pi * rate_hz * time) > 0) + np.random.default_rng(1).normal(0, 1, 2500)
    assert uv_per_count(counts, applied_mv=1.0) == pytest.approx(1000 / 81, rel=0.01)


def test_a_signal_without_two_levels_does_not_calibrate() -> None:
    for counts in (np.zeros(500), np.random.default_rng(1).normal(0, 5, 2000), np.arange(1000.0)):
        with pytest.raises(UnreadableInputError, match="two levels"):
            uv_per_count(counts, applied_mv=1.0)


def test_the_recording_stops_growing_at_its_limit() -> None:
    assembler = EcgAssembler(BOARDS["cyton"], SourceSpec("serial", "x"), seconds=0.2)
    assembler.add(feed("cyton", b"".join(stream("cyton", 200))))
    assert (len(assembler), assembler.full) == (50, True)


def test_lost_samples_and_pairs_of_gaps_never_overlap() -> None:
    assembler = EcgAssembler(BOARDS["cyton"], SourceSpec("serial", "x"), seconds=20)
    frames = stream("cyton", 200)
    assembler.add(feed("cyton", b"".join(frames[:50] + frames[60:61] + frames[70:])))
    spans = assembler.recording(at=AT, origin=Origin.LIVE, source="x").missing
    assert spans == ((50, 60), (61, 70))
    assert all(a[1] < b[0] for a, b in pairwise(spans))
