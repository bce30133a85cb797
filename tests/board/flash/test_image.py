"""The image is proven before a card is touched: hash, signature, block map, and every byte unpacked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from card_images import BOOT_BYTES, BOOT_START, SIZE, make_image, packed

from aidpost.board.flash.bmap import read_bmap
from aidpost.board.flash.image import Image, inspect, kind_of
from aidpost.board.flash.signature import check_signature, trusted_key
from aidpost.errors import UnreadableInputError, UnsupportedFormatError, UsageError

KINDS = ("raw", "xz", "zst", "gz", "zip")

# made by minisign 0.10 and by OpenSSL 3 over SIGNED
SIGNED = b"an image of aidpost\n" * 100
MINISIGN_KEY = "RWR0KYvglHG0vzoOlDidaNwbAifyruEdQiRSmAvuUBOEzN2dyjKGb6Ab"
MINISIGN = """untrusted comment: signature from minisign secret key
RUR0KYvglHG0v/ZNJjRe/CUdnX7dAtDiDBiqG8tlSf1bKrP9oI2kVz+VUNSkj3kulZWBBSTrAPM58exrplOOWmwiGhdyfBchyQE=
trusted comment: for the test
+lVTjXx332Wa8z70mluPXWNDH6pukBLueOSQT27pdx33HrZsILM+fLNkl56KUz8DP1zGhm7iuz8LOxfDZ706CA==
"""
MINISIGN_LEGACY = """untrusted comment: signature from minisign secret key
RWR0KYvglHG0v3oGJpYCZc/9ZNuhl4FXgGk8JJBwLVEFOuVYCOvc/TXhS7SbunT2o8kSIRfV1/gh9sH6/rooYoyv0mTaph/mOg4=
trusted comment: legacy
sTe5GMfkxnOxRevkAA5jBZ773J7sm8QmwlUDXMlMszQnxNb+ZylkChSj1WpEhGQMlJR8fBfBG1iuc8gzH6lHBw==
"""
OPENSSL_KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAZ/3FrO81c/ntDpb+wOpanR5eyNcIacSlbSqFXporRjI=
-----END PUBLIC KEY-----
"""
OPENSSL = bytes.fromhex(
    "7a0e0b78d733afadb80506491834f35bc0916f44af80061b06b73ea4d58ae4d5"
    "8eccf3df09976b2f6ecfe98d6152694e214b775e26bd8dfaa5455079b4556502"
)


def proven(path: Path, **more: object) -> Image:
    return inspect(path, file_sha256=hashlib.sha256(path.read_bytes()).hexdigest(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_each_form_is_known_by_its_content_and_unpacked_whole(kind: str, tmp_path: Path) -> None:
    image = make_image(tmp_path / "os.img")
    path = packed(image, kind)
    assert kind_of(path) == kind
    found = proven(path, boot_copy=tmp_path / "boot")
    assert (found.kind, found.size) == (kind, SIZE)
    assert found.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert (found.boot_start, found.boot_bytes) == (BOOT_START, BOOT_BYTES)
    end = BOOT_START + BOOT_BYTES
    assert (tmp_path / "boot").read_bytes() == image.read_bytes()[:end]


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.99, 0.99999])
def test_a_download_that_was_cut_off_is_refused_though_its_hash_was_not_given(
    kind: str, share: float, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "os.img")
    path = packed(image, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])
    with pytest.raises(UnreadableInputError):
        inspect(path, sha256=hashlib.sha256(image.read_bytes()).hexdigest())


@pytest.mark.parametrize("kind", KINDS)
def test_a_tampered_image_is_refused_before_a_card_is_touched(kind: str, tmp_path: Path) -> None:
    path = packed(make_image(tmp_path / "os.img"), kind)
    published = hashlib.sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableInputError, match="No card was touched"):
        inspect(path, file_sha256=published)


def test_an_image_that_nothing_vouches_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing vouches"):
        inspect(make_image(tmp_path / "os.img"))


def test_a_page_saved_under_an_images_name_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "os.img"
    page.write_text("<html>404 not found</html>" * 100)
    with pytest.raises(UnsupportedFormatError, match="no image of a disk"):
        proven(page)


def test_published_hash_of_the_content_is_compared(tmp_path: Path) -> None:
    path = packed(make_image(tmp_path / "os.img"), "xz")
    with pytest.raises(UnreadableInputError, match="unpacked content"):
        inspect(path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("key", "signature"),
    [(MINISIGN_KEY, MINISIGN), (MINISIGN_KEY, MINISIGN_LEGACY), (OPENSSL_KEY, OPENSSL)],
    ids=["minisign", "minisign-legacy", "openssl"],
)
def test_signatures_of_other_tools_are_verified_and_any_change_refused(
    key: str, signature: str | bytes, tmp_path: Path
) -> None:
    file, detached, public = tmp_path / "a", tmp_path / "a.sig", tmp_path / "key"
    file.write_bytes(SIGNED)
    raw = signature.encode() if isinstance(signature, str) else signature
    detached.write_bytes(raw)
    public.write_text(key)
    trusted = trusted_key(str(public))
    check_signature(file, detached, trusted)
    for position in range(0, len(SIGNED), 97):
        file.write_bytes(SIGNED[:position] + bytes([SIGNED[position] ^ 4]) + SIGNED[position + 1 :])
        with pytest.raises(UnreadableInputError, match="not what was signed"):
            check_signature(file, detached, trusted)
    file.write_bytes(SIGNED)
    detached.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UnreadableInputError):
        check_signature(file, detached, trusted)


def test_a_trusted_comment_that_was_altered_is_refused(tmp_path: Path) -> None:
    file, detached = tmp_path / "a", tmp_path / "a.sig"
    file.write_bytes(SIGNED)
    detached.write_text(MINISIGN.replace("for the test", "for the tent"))
    with pytest.raises(UnreadableInputError):
        check_signature(file, detached, trusted_key(MINISIGN_KEY))


def test_another_key_is_named(tmp_path: Path) -> None:
    file, detached = tmp_path / "a", tmp_path / "a.sig"
    file.write_bytes(SIGNED)
    detached.write_text(MINISIGN)
    other = MINISIGN_KEY[:8] + "A" + MINISIGN_KEY[9:]
    with pytest.raises(UnreadableInputError, match="it was signed with key bfb47194e08b2974"):
        check_signature(file, detached, trusted_key(other))


GOLDEN_BMAP = Path(__file__).parent / "golden.bmap"
"""Made by bmaptool 3.6 of the content of `mapped_image`."""


def mapped_image() -> bytearray:
    content = bytearray(10 * 4096 + 100)
    content[: 32 * 256] = bytes(range(256)) * 32
    content[5 * 4096 : 5 * 4096 + 4200] = b"aidpost" * 600
    content[10 * 4096 :] = b"z" * 100
    return content


def test_block_map_of_bmaptool_is_read() -> None:
    found = read_bmap(GOLDEN_BMAP)
    assert found.size == 41060
    assert [(one.start, one.end) for one in found.ranges] == [(0, 8192), (20480, 28672), (40960, 41060)]
    content = mapped_image()
    for one in found.ranges:
        assert hashlib.sha256(content[one.start : one.end]).hexdigest() == one.sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" 5-6 ", " 5-7 "),
        ("sha256 <", "sha1 <"),
        ("41060", "41061"),
        ('version="2.0"', 'version="1.4"'),
        ("<bmap", "<!DOCTYPE x><bmap"),
    ],
)
def test_block_map_that_was_altered_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bmap"
    path.write_text(GOLDEN_BMAP.read_text().replace(old, new))
    with pytest.raises(UnreadableInputError):
        read_bmap(path)
