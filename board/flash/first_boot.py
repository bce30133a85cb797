"""The first boot: which of the mechanisms an image uses, told by the image itself, and the files that set it up.

Sources: rpi-imager's doc/os_customisation_formats.md, raspberrypi-sys-mods, cloud-init's NoCloud. An image that gets
the wrong one boots without a word and without a single setting: where the signs do not agree nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from aidpost.board.flash.fat import BootFiles
from aidpost.errors import DeviceError, UnsupportedFormatError, UsageError

Mechanism = Literal["firstrun", "custom-toml", "cloud-init", "rpi-preseed"]
SETTINGS = "aidpost/setup.toml"
PACKAGE = "aidpost/aidpost.deb"
RECEIPT = "aidpost/receipt.json"
DECLARED = "aidpost/image.toml"
"""An image of one's own says here `first_boot = "…"`; it outweighs the signs."""

_FIRSTBOOT = "init=/usr/lib/raspberrypi-sys-mods/firstboot"
_RUN = "systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"


class FirstBoot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the board is told. The Wi-Fi key is the 64 hexadecimal digits of `wifi_key`, never the passphrase."""

    hostname: str = ""
    user: str = ""
    password_hash: str = ""
    ssh_keys: tuple[str, ...] = ()
    wifi_ssid: str = ""
    wifi_psk: str = ""
    wifi_country: str = ""
    timezone: str = ""
    hub: str = ""
    token: str = ""
    clinic: str = ""
    nonce: str = ""
    report_to: str = ""

    def __post_init__(self) -> None:
        rules = {
            "hostname": r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?",
            "user": r"([a-z_][a-z0-9_-]{0,31})?",
            "password_hash": r"(\$[a-z0-9]+\$[^\s:]+)?",
            "wifi_psk": r"([0-9a-f]{64})?",
            "wifi_country": r"([A-Z]{2})?",
            "timezone": r"([A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*)?",
        }
        for name, rule in rules.items():
            if not re.fullmatch(rule, getattr(self, name)):
                raise _usage(name, "it is not in the form that this setting has")
        for text in (self.wifi_ssid, self.hub, self.token, self.clinic, self.nonce, self.report_to, *self.ssh_keys):
            if re.search(r"[\x00-\x1f\x7f]", text):
                raise _usage("a setting", "it holds a control character or a line end")
        if not all(re.match(r"(ssh-|ecdsa-|sk-)\S+ \S+", key) for key in self.ssh_keys):
            raise _usage("ssh_keys", "one of them is not a public key (the .pub file's line)")
        if self.wifi_ssid and not (self.wifi_country and len(self.wifi_ssid.encode()) <= 32):
            raise _usage("wifi_ssid", "it is longer than 32 bytes, or the country is missing: the radio stays off")
        if (self.ssh_keys or self.password_hash) and not self.user:
            raise _usage("user", "a password or SSH key without a user")

    def public(self) -> dict[str, Any]:
        """For showing: without what opens a door."""
        shown = msgspec.to_builtins(self)
        return {
            k: "(set)" if v and k in {"password_hash", "wifi_psk", "token", "nonce"} else v for k, v in shown.items()
        }


def _usage(target: str, cause: str) -> UsageError:
    return UsageError(operation="preparing the first boot", target=target, cause=cause, remedy="Correct this setting.")


def wifi_key(ssid: str, passphrase: str) -> str:
    """The pre-shared key, 64 hexadecimal digits (IEEE 802.11i, H.4): it opens that one network and nothing else.

    Raises
    ------
    UsageError
        The passphrase is not of 8 to 63 characters.
    """
    if not 8 <= len(passphrase) <= 63:
        raise _usage("the Wi-Fi passphrase", "it must have 8 to 63 characters")
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), 4096, 32).hex()


def detect_mechanism(boot: BootFiles, target: str) -> Mechanism:
    """Which mechanism the image uses, by its boot partition.

    Raises
    ------
    UnsupportedFormatError
        It shows none, or several that exclude each other.
    """
    names = boot.names()
    if DECLARED.partition("/")[0] + "/" in names:
        found = re.search(r'^first_boot\s*=\s*"([\w-]+)"\s*$', _text(boot, DECLARED), re.MULTILINE)
        if found and found[1] in WRITERS:
            return found[1]  # type: ignore[return-value]
    command_line = _text(boot, "cmdline.txt")
    seeds = {"user-data", "meta-data"} <= names or "ds=nocloud" in command_line
    signs: list[Mechanism] = []
    if seeds:
        signs.append("cloud-init")
    if "rpi-preseed.toml" in names:
        signs.append("rpi-preseed")
    if _FIRSTBOOT in command_line:
        signs.append("custom-toml")
    elif (
        not signs
        and command_line
        and "Raspberry Pi reference" in (_text(boot, "issue.txt") if "issue.txt" in names else "")
    ):
        signs.append("firstrun")
    if len(signs) == 1:
        return signs[0]
    cause = f"it shows {' and '.join(signs)}, which exclude each other" if signs else "it shows none that is known"
    raise UnsupportedFormatError(
        operation="finding out how the image's first boot is set up",
        target=target,
        cause=cause,
        remedy="Nothing was written. If the image's maker says which it is: --first-boot NAME.",
    )


def _text(boot: BootFiles, name: str) -> str:
    """A file's text; empty where there is none."""
    try:
        return boot.read(name).decode("utf-8", "replace")
    except DeviceError:
        return ""


def first_boot_files(
    mechanism: Mechanism, settings: FirstBoot, read: Callable[[str], bytes], package: bytes | None = None
) -> dict[str, bytes]:
    """Name -> content of every file to put on the boot partition; `read` gives one that the image has.

    Raises
    ------
    UsageError
        The mechanism cannot do what is asked.
    """
    files = WRITERS[mechanism](settings, read, package is not None)
    files[SETTINGS] = _toml({"setup": _own(settings)}).encode()
    if package is not None:
        files[PACKAGE] = package
    return files


def _own(settings: FirstBoot) -> dict[str, Any]:
    """What is Aidpost's own business, read by `aidpost board provision` on the board."""
    keys = ("hub", "token", "clinic", "nonce", "report_to", "hostname", "user", "wifi_ssid", "timezone")
    return {key: getattr(settings, key) for key in keys if getattr(settings, key)}


def new_nonce() -> str:
    """A number that is written on one card only, so that a receipt with it can come from no other."""
    return secrets.token_hex(16)


def _toml(tables: Mapping[str, Mapping[str, Any]], head: str = "") -> str:
    # JSON's strings, numbers, truths and lists are TOML's too, once nothing is escaped as a surrogate pair
    lines = [head] if head else []
    for table, values in tables.items():
        if values:
            lines += ["", f"[{table}]"]
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def _with_command_line(read: Callable[[str], bytes], more: str) -> bytes:
    line = " ".join(read("cmdline.txt").decode().split())
    if more.partition("=")[0] + "=" in line:
        raise _usage("cmdline.txt", "it already starts something at first boot")
    return f"{line} {more}\n".encode()


_INSTALL = (
    "boot=/boot/firmware; [ -d $boot/aidpost ] || boot=/boot",
    "[ ! -f $boot/aidpost/aidpost.deb ] || apt-get install -y $boot/aidpost/aidpost.deb",
)


def _firstrun(settings: FirstBoot, read: Callable[[str], bytes], package: bool) -> dict[str, bytes]:
    custom, quote = "/usr/lib/raspberrypi-sys-mods/imager_custom", shlex.quote
    lines = ["#!/bin/bash", "set +e"]
    if settings.hostname:
        lines.append(f"{custom} set_hostname {quote(settings.hostname)}")
    if settings.user:
        lines.append(f"/usr/lib/userconf-pi/userconf {quote(settings.user)} {quote(settings.password_hash or '*')}")
    if settings.ssh_keys:
        lines.append(f"{custom} enable_ssh -k {' '.join(map(quote, settings.ssh_keys))}")
    if settings.wifi_ssid:
        lines.append(
            f"{custom} set_wlan {quote(settings.wifi_ssid)} {quote(settings.wifi_psk)} {quote(settings.wifi_country)}"
        )
    if settings.timezone:
        lines.append(f"{custom} set_timezone {quote(settings.timezone)}")
    if package:
        # there is no network yet: a unit that runs once, after it is up
        unit = (
            "[Unit]\\nWants=network-online.target\\nAfter=network-online.target\\n"
            "[Service]\\nType=oneshot\\nExecStart=/bin/sh /usr/local/sbin/aidpost-install\\n"
            "[Install]\\nWantedBy=multi-user.target\\n"
        )
        script = "\\n".join((*_INSTALL, "systemctl disable aidpost-install"))
        lines += [
            f"printf '{script}\\n' > /usr/local/sbin/aidpost-install",
            f"printf '{unit}' > /etc/systemd/system/aidpost-install.service",
            "systemctl enable aidpost-install.service",
        ]
    lines += [
        "rm -f /boot/firstrun.sh /boot/firmware/firstrun.sh",
        "for file in /boot/cmdline.txt /boot/firmware/cmdline.txt; do",
        "    [ -L $file ] || [ ! -f $file ] || sed -i 's| systemd.run.*||g' $file",
        "done",
        "exit 0",
    ]
    return {"firstrun.sh": ("\n".join(lines) + "\n").encode(), "cmdline.txt": _with_command_line(read, _RUN)}


def _custom_toml(settings: FirstBoot, read: Callable[[str], bytes], package: bool) -> dict[str, bytes]:
    if package:
        # custom.toml installs nothing; the same systems run firstrun.sh
        return _firstrun(settings, read, package)
    return {"custom.toml": _toml(_pi_tables(settings, "config_version"), "config_version = 1").encode()}


def _pi_tables(settings: FirstBoot, kind: str) -> dict[str, dict[str, Any]]:
    def given(**values: Any) -> dict[str, Any]:
        return {key: value for key, value in values.items() if value}

    hashed: dict[str, Any] = {"password_encrypted": True} if settings.password_hash else {}
    wlan: dict[str, Any] = {"password_encrypted": True} if settings.wifi_psk else {}
    ssh: dict[str, Any] = {"enabled": True, "password_authentication": False} if settings.ssh_keys else {}
    return {
        "system": given(hostname=settings.hostname),
        "user": given(name=settings.user, password=settings.password_hash) | hashed,
        "ssh": ssh | given(authorized_keys=list(settings.ssh_keys)),
        "wlan": given(ssid=settings.wifi_ssid, password=settings.wifi_psk, country=settings.wifi_country) | wlan,
        "locale": given(timezone=settings.timezone),
    }


def _preseed(settings: FirstBoot, read: Callable[[str], bytes], package: bool) -> dict[str, bytes]:
    if package:
        raise _usage("the package", "rpi-preseed installs nothing: use an image that has Aidpost in it")
    return {"rpi-preseed.toml": _toml(_pi_tables(settings, "preseed")).encode()}


def _cloud_init(settings: FirstBoot, read: Callable[[str], bytes], package: bool) -> dict[str, bytes]:
    number = f"aidpost-{settings.nonce or new_nonce()}"
    user: dict[str, Any] = {}
    if settings.hostname:
        user |= {"hostname": settings.hostname, "manage_etc_hosts": True}
    if settings.user:
        account: dict[str, Any] = {
            "name": settings.user,
            "groups": "users,adm,dialout,audio,video,plugdev,input,gpio,i2c,spi,netdev,render",
            "shell": "/bin/bash",
        }
        account["lock_passwd"] = not settings.password_hash
        if settings.password_hash:
            account["passwd"] = settings.password_hash
        if settings.ssh_keys:
            account |= {"ssh_authorized_keys": list(settings.ssh_keys), "sudo": "ALL=(ALL) NOPASSWD:ALL"}
        user |= {"users": [account], "ssh_pwauth": False}
    if settings.timezone:
        user["timezone"] = settings.timezone
    runs = ["systemctl enable --now ssh"] if settings.ssh_keys else []
    if package:
        runs.append("; ".join(_INSTALL))
    if runs:
        user["runcmd"] = runs
    network: dict[str, Any] = {"version": 2, "ethernets": {"eth0": {"dhcp4": True, "optional": True}}}
    if settings.wifi_ssid:
        point = {settings.wifi_ssid: {"password": settings.wifi_psk} if settings.wifi_psk else {}}
        network["wifis"] = {
            "wlan0": {
                "dhcp4": True,
                "optional": True,
                "regulatory-domain": settings.wifi_country,
                "access-points": point,
            }
        }
    # JSON is YAML, and quotes itself
    files = {
        "user-data": f"#cloud-config\n{json.dumps(user, indent=2, ensure_ascii=False)}\n".encode(),
        "meta-data": f'{{"instance-id": "{number}"}}\n'.encode(),
        "network-config": f"{json.dumps(network, indent=2, ensure_ascii=False)}\n".encode(),
    }
    with_seed = _cloud_command_line(read, number)
    return files | ({"cmdline.txt": with_seed} if with_seed else {})


def _cloud_command_line(read: Callable[[str], bytes], number: str) -> bytes | None:
    try:
        line = " ".join(read("cmdline.txt").decode().split())
    except DeviceError:  # an image that boots otherwise (Ubuntu on EFI) has none, and needs none
        return None
    kept = [word for word in line.split() if not word.startswith("ds=nocloud")]
    return f"{' '.join(kept)} ds=nocloud;i={number}\n".encode()


WRITERS: dict[str, Callable[[FirstBoot, Callable[[str], bytes], bool], dict[str, bytes]]] = {
    "firstrun": _firstrun,
    "custom-toml": _custom_toml,
    "cloud-init": _cloud_init,
    "rpi-preseed": _preseed,
}
