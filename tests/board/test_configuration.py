"""Configuration: defaults, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from aidpost.board import configuration
from aidpost.errors import ConfigurationError


def test_empty_file_gives_the_defaults() -> None:
    assert configuration.parse("") == configuration.Configuration() == configuration.load(None)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[sync]\nhots = 'a'", "Did you mean `host`"),
        ("[snyc]\nhost = 'a'", "Did you mean `sync`"),
        ("[sync]\nport = 0", "sync.port"),
        ("[sync]\nport = '1883'", "sync.port"),
        ("[store]\nkey = 'paper'", "store.key"),
        ("[exam]\necg_seconds = 1.0", "exam.ecg_seconds"),
        ("port = ", "TOML"),
    ],
)
def test_mistake_is_named_with_a_remedy(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse(text)
    assert named in str(caught.value)
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        configuration.load(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError):
        configuration.load(tmp_path / "x.toml")
