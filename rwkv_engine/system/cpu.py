"""Facts about this machine: cores, and the instruction set that kernels are compiled for."""

import functools
import os
import platform
import sys
from collections.abc import Collection
from pathlib import Path

#: Linux's information about processors
SYSTEM = Path("/sys/devices/system/cpu")
#: measures of a core's speed, best first, and the share of the fastest core's that a performance core has at
#: least: small cores have under 0.6 of a big core's capacity but up to 0.8 of its clock, and "favoured" cores
#: have a few per cent more of both
SPEEDS = (("cpu_capacity", 0.7), ("cpufreq/cpuinfo_max_freq", 0.85))

#: features that LLVM does not list for a processor given by name (NUMBA_CPU_NAME, or a system without a list)
_X86_2, _X86_VNNI = frozenset({"avx2"}), frozenset({"avx2", "avxvnni"})
NAMED = {
    **dict.fromkeys(("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "x86-64-v3"), _X86_2),
    **dict.fromkeys(("alderlake", "raptorlake", "meteorlake", "sierraforest"), _X86_VNNI),
    **dict.fromkeys(
        ("cascadelake", "icelake-client", "icelake-server", "znver4"), _X86_2 | {"avx512f", "avx512vnni"}
    ),
}

#: machine architecture for kernels: "x86", "arm" or "other"
ARCHITECTURE = {"x86_64": "x86", "AMD64": "x86", "i686": "x86", "aarch64": "arm", "arm64": "arm"}.get(
    platform.machine(), "other"
)


def usable_cpus() -> int:
    """Logical processors that this process may use (at least 1)."""
    return _bounded(len(_usable()), quota())


def lanes() -> int:
    """Best number of threads: physical performance cores, at most a container's quota of processor time."""
    return _bounded(physical_cores(), quota())


def _bounded(count: int, share: float | None) -> int:
    """At most as many as there are whole processors in `share`: a thread that is stopped holds up the others.

    0.1B in 8 bits, tokens/s with two threads and with one: 98 and 103 for 1.5 processors, 74 and 106 for 1.2.
    """
    return count if share is None else max(1, min(count, int(share)))


def quota(root: Path = Path("/")) -> float | None:
    """Processor time, in processors, that Linux's control groups allow this process (containers: `--cpus`).

    root     folder with /proc and /sys/fs/cgroup.
    Returns  None if no limit is known. A group's limit applies to the groups inside it: the lowest counts.
    """
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # version 2 has one tree (`unified` if mixed with version 1); version 1 has one per controller set
        for tree in {controllers, "cpu"} if controllers else {"", "unified"}:
            top = root / "sys/fs/cgroup" / tree  # in a container, its own group may be here
            group = top / place.strip("/")
            for each in {top, group, *group.parents} - set(top.parents):
                found += _limit(each)
    return min(found, default=None)


def _limit(group: Path) -> list[float]:
    """A control group's limit in processors, if it has one."""
    told = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us"),
        _read(group / "cpu.cfs_period_us"),
    ]
    if len(told) != 2 or not all(map(str.isdecimal, told)) or int(told[1]) == 0:
        return []  # "max", -1, or no file
    return [int(told[0]) / int(told[1])]


def physical_cores(folder: Path = SYSTEM, cpus: Collection[int] | None = None) -> int:
    """Physical performance cores among `cpus` (default: those this process may run on); at least 1.

    Hyper-thread siblings count once: they share load ports and memory requests, so two decode no faster than
    one. Much slower cores (the small ones of big.LITTLE) do not count: every stage would wait for them.

    folder  Linux's information about processors; without it, every logical processor counts.
    """
    cores: dict[str, int] = {}
    for cpu in _usable() if cpus is None else cpus:
        siblings = _read(folder / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu)
        cores.setdefault(siblings, cpu)
    for fact, share in SPEEDS:
        speeds = [_read(folder / f"cpu{cpu}" / fact) for cpu in cores.values()]
        if speeds and all(map(str.isdigit, speeds)):
            return sum(int(speed) >= share * max(map(int, speeds)) for speed in speeds)
    return max(1, len(cores))


def _usable() -> Collection[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # only on Linux
        return range(os.cpu_count() or 1)


def _read(path: Path) -> str:
    """A small text file without its line end; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def name() -> str:
    """The processor's name, for reports."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def has_features(*wanted: str) -> bool:
    """Whether kernels may use all these instruction sets, by LLVM's names ("avx2", "avx512vnni", "dotprod").

    This is about the processor that numba compiles for: this one, or the one in NUMBA_CPU_NAME.
    """
    return all(name in _features() for name in wanted)


@functools.cache
def _features() -> frozenset[str]:
    import llvmlite.binding

    name = _named()
    if name == "host":
        found = {feature for feature, there in llvmlite.binding.get_host_cpu_features().items() if there}
        found |= NAMED.get(llvmlite.binding.get_host_cpu_name(), frozenset())
    else:
        found = set(NAMED.get(name, ()))
    if ARCHITECTURE == "arm" and _llvm_uses_sdot(name):
        found.add("dotprod")
    return frozenset(found)


#: a sum of products of bytes, which LLVM compiles to `sdot` if it is allowed
_BYTES_PRODUCT = """
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
define i32 @product(<16 x i8> %a, <16 x i8> %b) {
  %x = sext <16 x i8> %a to <16 x i32>
  %y = sext <16 x i8> %b to <16 x i32>
  %products = mul <16 x i32> %x, %y
  %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %products)
  ret i32 %sum
}"""


def _llvm_uses_sdot(name: str) -> bool:
    """Whether LLVM may use AArch64's dot products of bytes for the processor `name` ("host": this one).

    It compiles one to find out: the feature lists of systems and LLVM omit it for ARM processors.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if name == "generic" else llvm.get_host_cpu_features().flatten()
    if name == "host":
        name = llvm.get_host_cpu_name()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=2)
    return "sdot" in machine.emit_assembly(llvm.parse_assembly(_BYTES_PRODUCT))


#: Linux's system call `arch_prctl` on x86-64, the request, and the number of AMX's tile registers
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def has_tiles() -> bool:
    """Whether kernels may use AMX on bytes: the processor has it, and the system permits the tile registers.

    Linux must be asked once, for all threads of a process and its forks; other systems are not asked.
    """
    if not (
        has_features("amx-tile", "amx-int8") and sys.platform == "linux" and platform.machine() == "x86_64"
    ):
        return False
    return _system_call(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA) == 0


def _system_call(*numbers: int) -> int:
    """The result of a Linux system call; -1 if it is refused or unknown."""
    import ctypes

    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, numbers))


def wide_vectors() -> bool:
    """Whether kernels have 32 vector registers of 512 bits (AVX-512), which allows larger tiles."""
    return has_features("avx512f")


def reads_ahead() -> bool:
    """Whether the target processor prefetches streams of weights well, so that prefetching each line a
    little ahead only costs.

    AMD's Zen does: on a Zen 4, one core reads BF16 1.2 to 1.8 times as fast without. What is multiplied more
    slowly gains from prefetches beyond a page (`kernels.pointers.FAR`). Intel's cores gain from near ones (14
    instead of 9 GB/s for one core of a Xeon).
    """
    import llvmlite.binding

    name = _named()
    return (llvmlite.binding.get_host_cpu_name() if name == "host" else name).startswith("znver")


def _named() -> str:
    """The processor that numba compiles for: NUMBA_CPU_NAME, or "host" for this one."""
    return os.environ.get("NUMBA_CPU_NAME") or "host"


def wanted_level() -> str | None:
    """The level of integer kernels set by RWKV_ENGINE_LEVEL, if any; see `kernels.int8_levels`."""
    return os.environ.get("RWKV_ENGINE_LEVEL")
