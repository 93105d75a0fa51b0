"""Facts about this machine: cores and the instruction set that kernels are compiled for."""

import functools
import os
import platform
from pathlib import Path

#: what LLVM does not tell of processors that are named, by NUMBA_CPU_NAME or by a system that lists no features
_X86_2, _X86_VNNI, _ARM_DOT = frozenset({"avx2"}), frozenset({"avx2", "avxvnni"}), frozenset({"dotprod"})
NAMED = {
    **dict.fromkeys(("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "x86-64-v3"), _X86_2),
    **dict.fromkeys(("alderlake", "raptorlake", "meteorlake", "sierraforest"), _X86_VNNI),
    **dict.fromkeys(("cascadelake", "icelake-client", "icelake-server", "znver4"), _X86_2 | {"avx512f", "avx512vnni"}),
    **dict.fromkeys(("cortex-a55", "cortex-a76", "cortex-a78", "neoverse-n1", "neoverse-v1"), _ARM_DOT),
    **dict.fromkeys(("apple-m1", "apple-m2", "apple-m3", "apple-m4"), _ARM_DOT),
}

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


def has_features(*wanted: str) -> bool:
    """Whether kernels may use all these instruction sets, by LLVM's names ("avx2", "avx512vnni", "dotprod").

    Asked is the processor that numba compiles for: this one, or the one that NUMBA_CPU_NAME names.
    """
    return all(name in _features() for name in wanted)


@functools.cache
def _features() -> frozenset[str]:
    import llvmlite.binding

    name = os.environ.get("NUMBA_CPU_NAME") or "host"
    if name != "host":
        return NAMED.get(name, frozenset())
    found = {feature for feature, there in llvmlite.binding.get_host_cpu_features().items() if there}
    return frozenset(found) | NAMED.get(llvmlite.binding.get_host_cpu_name(), frozenset())


def wide_vectors() -> bool:
    """Whether kernels are compiled for 32 vector registers of 512 bits (AVX-512): their tiles may then be larger."""
    return has_features("avx512f")


def wanted_level() -> str | None:
    """The level of integer kernels that RWKV_ENGINE_LEVEL asks for, if any; see `kernels.int8_levels`."""
    return os.environ.get("RWKV_ENGINE_LEVEL")
