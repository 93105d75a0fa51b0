"""Facts about this machine: cores and the instruction set that kernels are compiled for."""

import os
import platform
from pathlib import Path

#: machine architecture as kernels distinguish it: "x86", "arm" or "other"
ARCHITECTURE = {"x86_64": "x86", "AMD64": "x86", "i686": "x86", "aarch64": "arm", "arm64": "arm"}.get(platform.machine(), "other")


def usable_cpus() -> int:
    """Logical processors this process may run on (at least 1)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Linux alone has it
        return os.cpu_count() or 1


def physical_cores() -> int:
    """Physical cores this process may run on: hyper-thread siblings count once (Linux; elsewhere logical processors).

    Two threads of one core share its load ports and its memory requests, so they do not decode faster than one.
    """
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:
        return usable_cpus()
    cores = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text().strip() if siblings.is_file() else str(cpu))
    return max(1, len(cores))


def name() -> str:
    """The processor's name as the system tells it, for reports."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no Linux: fall through to what Python knows
    return platform.processor() or platform.machine()


def wide_vectors() -> bool:
    """Whether kernels are compiled for 32 vector registers of 512 bits (AVX-512): their tiles may then be larger."""
    if ARCHITECTURE != "x86" or os.environ.get("NUMBA_CPU_NAME", "host") != "host":
        return False
    import llvmlite.binding

    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))


def level() -> str:
    """The instruction set that integer kernels are compiled for: "vnni" (AVX-512 VNNI) or "portable".

    RWKV_ENGINE_LEVEL asks for another; whoever compiles the kernels says whether there is such a one here.
    """
    return os.environ.get("RWKV_ENGINE_LEVEL", "vnni" if has_vnni() else "portable")


def has_vnni() -> bool:
    """Whether kernels may use AVX-512 VNNI."""
    if not wide_vectors():
        return False
    import llvmlite.binding

    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vnni", False))
