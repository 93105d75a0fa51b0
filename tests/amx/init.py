#!/usr/bin/python3.11
"""The first process of the emulated computer: runs Python as /arguments says, tells its exit code, and
switches off.
"""

import ctypes
import os
import subprocess
import sys
import termios
from pathlib import Path

libc = ctypes.CDLL(None)
for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")):
    os.makedirs(place, exist_ok=True)
    libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)
passed = [entry.split("=", 1) for entry in Path("/environment").read_text().split("\0") if entry]
environment = {
    "HOME": "/tmp",
    "PATH": "/usr/bin",
    "PYTHONPATH": "/repository:/site",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
arguments = Path("/arguments").read_text().split("\0")[:-1]
environment.update(dict(passed), NUMBA_CACHE_DIR="/tmp/numba", TMPDIR="/tmp")
if " amx_int8 " in Path("/proc/cpuinfo").read_text():
    code = subprocess.run([sys.executable, *arguments], cwd="/repository", env=environment).returncode
else:
    print("AMX: not emulated, this Bochs was built without --enable-amx")
    code = 69
print(f"\nexit code {code % 256}", flush=True)
termios.tcdrain(1)
libc.reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF
