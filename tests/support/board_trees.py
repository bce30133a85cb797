"""What a few files below /proc, /sys, /dev and /etc say on the boards that Aidpost runs on, written down as text, and
planted below a folder for a test. The layout is the kernel's; serial numbers and addresses are made up."""

from __future__ import annotations

from pathlib import Path

Tree = dict[str, str | bytes]

OS = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'


def _arm(cores: int, part: str, tail: str = "", architecture: int = 8) -> str:
    each = "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n" + (
        f"CPU implementer\t: 0x41\nCPU architecture: {architecture}\nCPU variant\t: 0x0\nCPU part\t: {part}\n\n"
    )
    return "".join(each.format(core) for core in range(cores)) + tail


def _pi(model: str, revision: str, part: str, memory_kb: int, compatible: bytes, *, architecture: int = 8) -> Tree:
    tail = f"Revision\t: {revision}\nSerial\t\t: 10000000abcdef01\nModel\t\t: {model}\n"
    return {
        "proc/cpuinfo": _arm(4, part, tail, architecture),
        "proc/device-tree/model": model.encode() + b"\0",
        "proc/device-tree/compatible": compatible,
        "proc/device-tree/serial-number": b"10000000abcdef01\0",
        "proc/device-tree/system/linux,revision": int(revision, 16).to_bytes(4, "big"),
        "proc/meminfo": f"MemTotal:       {memory_kb} kB\nMemFree:  90000 kB\nMemAvailable:   {memory_kb // 2} kB\n",
        "proc/mounts": "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\nproc /proc proc rw,relatime 0 0\n"
        "/dev/mmcblk0p1 /boot/firmware vfat rw,relatime 0 0\n",
        "etc/os-release": OS,
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/bluetooth/hci0/address": "b8:27:eb:00:00:01\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
        "sys/block/mmcblk0/device/type": "SD\n",
        "dev/ttyAMA0": "",
    }


# a Pi's processor has a dozen video nodes of its own, with no camera connected
_CODERS: Tree = {
    "dev/video10": "",
    "sys/class/video4linux/video10/name": "bcm2835-codec-decode\n",
    "dev/video13": "",
    "sys/class/video4linux/video13/name": "bcm2835-isp-output0\n",
    "sys/class/video4linux/video13/index": "0\n",
}
_CSI_CAMERA: Tree = {
    "dev/video0": "",
    "sys/class/video4linux/video0/name": "unicam-image\n",
    "sys/class/video4linux/video0/index": "0\n",
    "dev/video1": "",
    "sys/class/video4linux/video1/name": "unicam-embedded\n",
    "sys/class/video4linux/video1/index": "1\n",
}
# one camera, two nodes of the same name: pictures and metadata
_USB_CAMERA: Tree = {
    "dev/video0": "",
    "sys/class/video4linux/video0/name": "HD USB Camera: HD USB Camera\n",
    "sys/class/video4linux/video0/index": "0\n",
    "dev/video1": "",
    "sys/class/video4linux/video1/name": "HD USB Camera: HD USB Camera\n",
    "sys/class/video4linux/video1/index": "1\n",
}

PI_3 = _pi("Raspberry Pi 3 Model B Plus Rev 1.3", "a020d3", "0xd03", 944_424,
           b"raspberrypi,3-model-b-plus\0brcm,bcm2837\0", architecture=7) | _CODERS  # fmt: skip
PI_4 = _pi("Raspberry Pi 4 Model B Rev 1.4", "c03114", "0xd08", 3_884_360,
           b"raspberrypi,4-model-b\0brcm,bcm2711\0") | _CODERS | _CSI_CAMERA | {"dev/ttyACM0": ""}  # fmt: skip
PI_5 = _pi("Raspberry Pi 5 Model B Rev 1.0", "d04170", "0xd0b", 8_254_944,
           b"raspberrypi,5-model-b\0brcm,bcm2712\0") | _USB_CAMERA | {
    "sys/class/rtc/rtc0/since_epoch": "1795327200\n",
    "dev/video19": "",
    "sys/class/video4linux/video19/name": "rpi-hevc-dec\n",
    "sys/class/video4linux/video19/index": "0\n",
}  # fmt: skip
# the firmware's node lies elsewhere on a Pi 5
PI_5["sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"] = PI_5.pop(
    "sys/devices/platform/soc/soc:firmware/get_throttled"
)
PI_ZERO_2 = _pi("Raspberry Pi Zero 2 W Rev 1.0", "902120", "0xd03", 426_636,
                b"raspberrypi,model-zero-2-w\0brcm,bcm2837\0") | _CODERS  # fmt: skip
COMPUTE_MODULE_4 = _pi("Raspberry Pi Compute Module 4 Rev 1.1", "b03141", "0xd08", 1_894_856,
                       b"raspberrypi,4-compute-module\0brcm,bcm2711\0") | {
    "sys/block/mmcblk0/device/type": "MMC\n",
    "sys/block/mmcblk0/device/life_time": "0x02 0x01\n",
    "sys/block/mmcblk0/device/pre_eol_info": "0x01\n",
}  # fmt: skip


def _jetson(model: str, compatible: bytes, cores: int, part: str, memory_kb: int, zones: dict[str, str]) -> Tree:
    tree: Tree = {
        "proc/cpuinfo": _arm(cores, part),
        "proc/device-tree/model": model.encode() + b"\0",
        "proc/device-tree/compatible": compatible,
        "proc/device-tree/serial-number": b"1420000000001\0",
        "proc/meminfo": f"MemTotal:       {memory_kb} kB\nMemAvailable:   {memory_kb // 2} kB\n",
        "proc/mounts": "/dev/mmcblk0p1 / ext4 rw,relatime 0 0\n",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        "sys/class/rtc/rtc0/since_epoch": "1795327200\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
        "sys/block/mmcblk0/device/type": "SD\n",
        "dev/ttyTHS1": "",
    }
    for number, (kind, reading) in enumerate(zones.items()):
        tree[f"sys/class/thermal/thermal_zone{number}/type"] = kind + "\n"
        tree[f"sys/class/thermal/thermal_zone{number}/temp"] = reading
    return tree


JETSON_NANO = _jetson(
    "NVIDIA Jetson Nano Developer Kit", b"nvidia,p3450-0000\0nvidia,jetson-nano\0nvidia,tegra210\0", 4, "0xd07",
    4_059_292, {"AO-therm": "41500\n", "CPU-therm": "34500\n", "PMIC-Die": "100000\n"},
)  # fmt: skip
JETSON_ORIN_NANO = _jetson(
    "NVIDIA Jetson Orin Nano Developer Kit", b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0", 6,
    "0xd42", 7_802_904, {"cpu-thermal": "46812\n", "gpu-thermal": ""},
) | {
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "0\n",
}  # fmt: skip
PC: Tree = {
    "proc/cpuinfo": "".join(
        f"processor\t: {core}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz\n"
        "flags\t\t: fpu vme de pse tsc msr syscall nx lm constant_tsc avx2\n\n"
        for core in range(8)
    ),
    "proc/meminfo": "MemTotal:       16265512 kB\nMemAvailable:   9000000 kB\n",
    "proc/mounts": "/dev/nvme0n1p2 / ext4 rw,relatime 0 0\n",
    "etc/os-release": OS,
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "20LES01W00\n",
    "sys/class/thermal/thermal_zone0/type": "acpitz\n",
    "sys/class/thermal/thermal_zone0/temp": "25000\n",
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone1/temp": "55000\n",
    "sys/class/rtc/rtc0/since_epoch": "1795327200\n",
    "sys/class/bluetooth/hci0/address": "00:00:00:00:00:02\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "sys/block/nvme0n1/size": "1000215216\n",
    "dev/ttyS0": "",
    "dev/ttyUSB0": "",
} | _USB_CAMERA

TREES: dict[str, Tree] = {
    "pi-3": PI_3,
    "pi-4": PI_4,
    "pi-5": PI_5,
    "pi-zero-2": PI_ZERO_2,
    "compute-module-4": COMPUTE_MODULE_4,
    "jetson-nano": JETSON_NANO,
    "jetson-orin-nano": JETSON_ORIN_NANO,
    "pc": PC,
}


def plant(root: Path, tree: Tree) -> Path:
    """Write a tree below `root`, and return that."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
