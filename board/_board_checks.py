"""The doctor's checks of the board itself: power, heat, storage, clock, ports. Each reads files below the root only."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from aidpost.board import _tree
from aidpost.board._check import Answer, Surroundings
from aidpost.board.detect import detect, temperature_c

LOW_MEMORY_MB = 150
"""Less than this available, and loading the models may end another process."""

HOT_C, TOO_HOT_C = 80.0, 90.0
"""From 80 °C a Raspberry Pi slows itself down, from 85 °C hard."""

LOW_DISK_MB = 1024
NO_EARLIER_MS = int(datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp() * 1000)
"""A clock that says an earlier date than this software's was never set."""

_SUPPLY = "use the board's own supply and a short cable: 5 V 3 A for a Pi 3 or 4, 5 V 5 A for a Pi 5"
_COOL = "uncover the vents, fit a heat sink or fan, keep the device out of the sun"


def board(at: Surroundings) -> Answer:
    """Model and memory."""
    found = detect(at.root)
    memory = "memory unknown" if found.memory_mb is None else f"{found.memory_mb} MB of memory"
    why = f"{found.model} ({found.kind}), {found.cores} x {found.architecture}, {memory}"
    available = _tree.first(r"^MemAvailable:\s*(\d+) kB", _tree.text(at.root / "proc/meminfo"))
    if found.model == "unknown" or found.memory_mb is None:
        return Answer("unknown", why, "aidpost board detect")
    if available is not None and int(available) // 1024 < LOW_MEMORY_MB:
        return Answer("warning", f"{why}, only {int(available) // 1024} MB available", "ps aux --sort=-rss | head")
    return Answer("ok", why)


def power(at: Surroundings) -> Answer:
    """Under-voltage and throttling, now and since boot."""
    for path in sorted((at.root / "sys/devices/platform").glob("soc*/*firmware/get_throttled")):
        bits = _tree.number(path, 16)
        if bits is not None:
            return _throttled(bits)
    for chip in sorted((at.root / "sys/class/hwmon").glob("hwmon*")):
        name = _tree.text(chip / "name")
        alarm = _tree.number(chip / "in0_lcrit_alarm")
        if name == "rpi_volt" and alarm is not None:
            # newer kernels tell the under-voltage here and no longer the rest
            return _throttled(alarm)
        if name == "soctherm_oc":
            return _over_current({node: _tree.number(chip / f"{node}_event_cnt") for node in ("oc1", "oc2", "oc3")})
    return Answer("unknown", "this board's supply is not measured, or the kernel does not tell")


def _throttled(bits: int) -> Answer:
    """The Raspberry Pi's word: bits 0-3 are now, 16-19 since boot (documentation of `vcgencmd get_throttled`)."""
    names = ("under-voltage", "processor clock capped", "throttled", "soft temperature limit")
    now = [name for bit, name in enumerate(names) if bits >> bit & 1]
    since = [name for bit, name in enumerate(names) if bits >> (bit + 16) & 1 and name not in now]
    said = ([f"now: {', '.join(now)}"] if now else []) + ([f"since boot: {', '.join(since)}"] if since else [])
    if not said:
        return Answer("ok", "no under-voltage and no throttling since boot")
    mend = _SUPPLY if "under-voltage" in now + since else _COOL
    return Answer("failed" if bits & 1 else "warning", "; ".join(said), mend)


def _over_current(counts: dict[str, int | None]) -> Answer:
    """Jetson Orin's counters since boot (NVIDIA's developer guide, "Jetson Orin: over-current and under-voltage")."""
    names = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
    said = [f"{names[node]} {count} times" for node, count in counts.items() if count]
    if all(count is None for count in counts.values()):
        return Answer("unknown", "the kernel's counters cannot be read")
    if said:
        return Answer("warning", f"since boot: {', '.join(said)}", "nvpmodel -q; choose a smaller mode or supply more")
    return Answer("ok", "no under-voltage and no over-current since boot")


def temperature(at: Surroundings) -> Answer:
    """The processor's temperature."""
    celsius = temperature_c(at.root)
    if celsius is None:
        return Answer("unknown", "no temperature sensor of the processor can be read")
    if celsius < HOT_C:
        return Answer("ok", f"{celsius:.1f} °C")
    return Answer("failed" if celsius >= TOO_HOT_C else "warning", f"{celsius:.1f} °C", _COOL)


class Mount(NamedTuple):
    """A line of /proc/mounts."""

    source: str
    point: str
    kind: str
    options: tuple[str, ...]


def mount_of(root: Path, folder: Path) -> Mount | None:
    """The file system that `folder` lies on, by the mounts below `root`; None where there is no table."""
    table = _tree.text(root / "proc/self/mounts") or _tree.text(root / "proc/mounts") or ""
    best: Mount | None = None
    for line in table.splitlines():
        # spaces in names stand as \040
        fields = [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field) for field in line.split(" ")]
        # of two mounts on one point the later hides the earlier
        if (
            len(fields) >= 4
            and folder.is_relative_to(fields[1])
            and (best is None or len(fields[1]) >= len(best.point))
        ):
            best = Mount(fields[0], fields[1], fields[2], tuple(fields[3].split(",")))
    return best


def disk(at: Surroundings) -> Answer:
    """Free disk for the records."""
    free, reserve = at.free_bytes(at.state_dir) >> 20, at.configuration.store.reserve_mb
    why = f"{free} MB free for {at.state_dir}"
    if free < reserve:
        why += f", less than the {reserve} MB that stay in reserve: new captures are refused"
        return Answer("failed", why, "aidpost outbox status; connect the hub, or free space on the disk")
    if free < max(LOW_DISK_MB, 2 * reserve):
        return Answer("warning", why, "aidpost outbox status; connect the hub, or free space on the disk")
    return Answer("ok", why)


def file_system(at: Surroundings) -> Answer:
    """Whether the file system of the records is writable, and keeps what was written when the power goes."""
    mount = mount_of(at.root, at.state_dir.absolute())
    if mount is None:
        return Answer("unknown", "there is no table of mounts to read")
    why = f"{mount.source} on {mount.point} ({mount.kind})"
    if "ro" in mount.options:
        mend = f"dmesg | grep -i error; mount -o remount,rw {mount.point}; replace the card if it happens again"
        return Answer("failed", f"{why} is read-only: the kernel makes a damaged one so", mend)
    if mount.kind in {"tmpfs", "ramfs"}:
        return Answer("failed", f"{why} is memory: records are lost at power-off", "aidpost --state-dir DIR on a disk")
    errors = _tree.number(at.root / "sys/fs/ext4" / Path(mount.source).name / "errors_count")
    if errors:
        mend = "add fsck.mode=force fsck.repair=yes to the kernel's command line once, and restart"
        return Answer("warning", f"{why} has recorded {errors} errors", mend)
    unsafe = [one for one in mount.options if one in {"data=writeback", "nobarrier", "barrier=0"}]
    if unsafe:
        mend = f"remove {', '.join(unsafe)} from {mount.point} in /etc/fstab, and restart"
        return Answer("warning", f"{why} has {', '.join(unsafe)}: a power cut damages what was written", mend)
    if mount.kind in {"vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "overlay"}:
        return Answer("warning", f"{why} is no place for records: no journal of its own", "keep the records on ext4")
    return Answer("ok", f"{why}, writable")


def storage_wear(at: Surroundings) -> Answer:
    """What an eMMC says of its own wear (JEDEC 84-B51: DEVICE_LIFE_TIME_EST, PRE_EOL_INFO)."""
    answers = [_wear(device.parent.name, device) for device in sorted((at.root / "sys/block").glob("mmcblk*/device"))]
    if not answers:
        return Answer("unknown", "there is no eMMC or SD card", "for an NVMe or SATA disk: smartctl -a DEVICE")
    order = ("failed", "warning", "unknown", "ok")
    return min(answers, key=lambda answer: order.index(answer.state))


def _wear(name: str, device: Path) -> Answer:
    steps = [int(one, 16) for one in re.findall(r"0x[0-9a-fA-F]+", _tree.text(device / "life_time") or "")]
    reserve = _tree.number(device / "pre_eol_info", 16) or 0
    if not any(steps) and not reserve:
        kind = "an SD card does" if _tree.text(device / "type") == "SD" else "it does"
        return Answer("unknown", f"{name}: {kind} not tell its wear", "replace SD cards by age: write the date on them")
    # 0x01 is up to 10 % of the life used, 0x0A up to 100 %, 0x0B beyond it
    used = max(steps, default=0)
    why = f"{name}: {'beyond its life' if used > 10 else f'up to {used * 10} % of its life used'}"
    why += {2: ", 80 % of its spare blocks used", 3: ", nearly all of its spare blocks used"}.get(reserve, "")
    mend = "aidpost outbox status; when the hub has everything, move to a new card or module"
    if used > 10 or reserve >= 3:
        return Answer("failed", why, mend)
    return Answer("warning", why, mend) if used >= 9 or reserve == 2 else Answer("ok", why)


def clock(at: Surroundings) -> Answer:
    """What the clock counts by, what it says, and whether a time server has set it since boot."""
    source = _tree.text(at.root / "sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown source"
    now_ms = at.clock.wall_ms()
    said = datetime.fromtimestamp(now_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    mend = "timedatectl set-ntp true; without a network: timedatectl set-time 'YYYY-MM-DD HH:MM:SS'"
    if now_ms < NO_EARLIER_MS:
        return Answer("failed", f"it says {said}: it was never set ({source})", mend)
    if not at.clock.synced():
        return Answer("warning", f"{said} by {source}, not confirmed by a time server since boot", mend)
    return Answer("ok", f"{said} by {source}, confirmed by a time server since boot")


def real_time_clock(at: Surroundings) -> Answer:
    """Whether a clock with a battery goes on while the power is off."""
    clocks = at.root / "sys/class/rtc"
    found = _tree.names(clocks, r"rtc\d+")
    if not found:
        return Answer("warning", "there is none: after a power cut the time is wrong until a server is reached", _RTC)
    seconds = _tree.number(clocks / found[0] / "since_epoch")
    if seconds is None:
        return Answer("unknown", f"{found[0]} is there and cannot be read", "hwclock --show --verbose")
    if seconds * 1000 < NO_EARLIER_MS:
        return Answer("warning", f"{found[0]} is there and was never set, or its battery is empty", _BATTERY)
    if at.clock.synced() and abs(seconds * 1000 - at.clock.wall_ms()) > 3_600_000:
        return Answer("warning", f"{found[0]} is more than an hour off the confirmed time", _BATTERY)
    return Answer("ok", f"{found[0]} keeps the time while the power is off")


_RTC = "fit a DS3231 and add dtoverlay=i2c-rtc,ds3231 to config.txt (a Pi 5 has one: it needs only its battery)"
_BATTERY = "replace its battery, then: hwclock --systohc"


def _nodes(at: Surroundings, what: str, nodes: tuple[str, ...], group: str) -> Answer:
    if not nodes:
        return Answer("warning", f"no {what} is connected", "connect it, then: aidpost board detect")
    closed = [node for node in nodes if not at.may_open(at.root / "dev" / node)]
    if closed:
        return Answer("failed", f"this user may not open {', '.join(closed)}", f"sudo usermod -aG {group} $USER")
    return Answer("ok", ", ".join(nodes))


def camera(at: Surroundings) -> Answer:
    """Whether there is a camera that this user may open."""
    return _nodes(at, "camera", detect(at.root).cameras, "video")


def serial(at: Surroundings) -> Answer:
    """Whether there is a serial port that this user may open."""
    return _nodes(at, "serial port", detect(at.root).serial_ports, "dialout")


def bluetooth(at: Surroundings) -> Answer:
    """Whether there is a Bluetooth adapter, and it is not switched off."""
    adapters = detect(at.root).bluetooth
    if not adapters:
        return Answer("warning", "no adapter: Bluetooth sensors cannot be used", "systemctl status hciuart bluetooth")
    for switch in sorted((at.root / "sys/class/rfkill").glob("rfkill*")):
        if _tree.text(switch / "type") != "bluetooth":
            continue
        if _tree.number(switch / "hard"):
            return Answer("failed", f"{', '.join(adapters)} is switched off by hardware", "find the device's switch")
        if _tree.number(switch / "soft"):
            return Answer("failed", f"{', '.join(adapters)} is switched off", "rfkill unblock bluetooth")
    return Answer("ok", ", ".join(adapters))
