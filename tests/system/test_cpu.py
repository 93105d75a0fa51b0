"""Facts about machines: cores counted in made-up trees like Linux's, and what kernels may use."""

import os
import subprocess
import sys

import pytest

from rwkv_engine.system import cpu


def tree(folder, cpus):
    """A folder like /sys/devices/system/cpu: for each processor its siblings and facts."""
    for number, (siblings, facts) in enumerate(cpus):
        (folder / f"cpu{number}" / "topology").mkdir(parents=True)
        (folder / f"cpu{number}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
        for name, value in facts.items():
            path = folder / f"cpu{number}" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{value}\n")
    return folder


CAPACITY, CLOCK = "cpu_capacity", "cpufreq/cpuinfo_max_freq"
MACHINES = {
    "Raspberry Pi: four equal cores": ([(str(n), {CLOCK: 2400000}) for n in range(4)], 4),
    "RK3588: four big and four small": (
        [
            (str(n), {CAPACITY: 530 if n < 4 else 1024, CLOCK: 1800000 if n < 4 else 2400000})
            for n in range(8)
        ],
        4,
    ),
    "a laptop with hyper-threads": (
        [(f"{n // 2 * 2}-{n // 2 * 2 + 1}", {CLOCK: 4700000}) for n in range(8)],
        4,
    ),
    "two favoured cores among six": ([(str(n), {CLOCK: 5200000 if n < 2 else 5000000}) for n in range(6)], 6),
    "hybrid, by clock": (
        [
            ("0-1", {CLOCK: 5000000}),
            ("0-1", {CLOCK: 5000000}),
            ("2", {CLOCK: 3900000}),
            ("3", {CLOCK: 3900000}),
        ],
        1,
    ),
    "a virtual machine that tells nothing": ([("0", {}), ("1", {})], 2),
    "clocks that cannot be read": ([("0", {CLOCK: "<unknown>"}), ("1", {CLOCK: "<unknown>"})], 2),
}


@pytest.mark.parametrize("name", MACHINES)
def test_lanes_are_the_physical_performance_cores(tmp_path, name):
    cpus, want = MACHINES[name]
    assert cpu.physical_cores(tree(tmp_path, cpus), range(len(cpus))) == want


def test_cores_that_this_process_may_not_use_do_not_count(tmp_path):
    folder = tree(tmp_path, MACHINES["RK3588: four big and four small"][0])
    assert cpu.physical_cores(folder, {0, 1}) == 2  # the small ones are then the fastest there are
    assert cpu.physical_cores(folder, {3, 7}) == 1
    assert cpu.physical_cores(tmp_path / "missing", {5}) == 1


V2, V1 = "0::{}\n", "12:pids:{0}\n4:cpu,cpuacct:{0}\n1:name=systemd:{0}\n"
GROUPS = {
    "no limit": (V2.format("/"), {"cpu.max": "max 100000"}, None),
    "a container of version 2": (V2.format("/"), {"cpu.max": "150000 100000"}, 1.5),
    "a group inside it": (V2.format("/a/b"), {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
    "the least one counts": (
        V2.format("/a/b"),
        {"a/b/cpu.max": "90000 100000", "a/cpu.max": "50000 100000"},
        0.5,
    ),
    "another group's limit": (V2.format("/a"), {"b/cpu.max": "50000 100000"}, None),
    "version 1": (
        V1.format("/docker/7f"),
        {"cpu,cpuacct/docker/7f/cpu.cfs_quota_us": 400000, "cpu,cpuacct/docker/7f/cpu.cfs_period_us": 200000},
        2,
    ),
    "version 1 from inside, mounted as cpu": (
        V1.format("/docker/7f"),
        {"cpu/cpu.cfs_quota_us": 100000, "cpu/cpu.cfs_period_us": 100000},
        1,
    ),
    "version 1 without a limit": (
        V1.format("/"),
        {"cpu,cpuacct/cpu.cfs_quota_us": -1, "cpu,cpuacct/cpu.cfs_period_us": 100000},
        None,
    ),
    "version 2 beside 1": (V1.format("/") + V2.format("/x"), {"unified/x/cpu.max": "300000 100000"}, 3),
    "something else": ("what is this\n\n:::\n", {"cpu.max": "many\n"}, None),
    "a period of nothing": (V2.format("/"), {"cpu.max": "100 0"}, None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_containers_quota_of_processor_time_is_found(tmp_path, name):
    told, files, want = GROUPS[name]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(told)
    for place, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert cpu.quota(tmp_path) == want
    assert cpu.quota(tmp_path / "missing") is None


@pytest.mark.parametrize(("share", "want"), [(None, 4), (0.2, 1), (1.0, 1), (1.9, 1), (3.0, 3), (64.0, 4)])
def test_lanes_are_no_more_than_the_quota(monkeypatch, share, want):
    import rwkv_engine

    monkeypatch.setattr(cpu, "physical_cores", lambda: 4)
    monkeypatch.setattr(cpu, "_usable", lambda: range(4))
    monkeypatch.setattr(cpu, "quota", lambda: share)
    assert cpu.lanes() == cpu.usable_cpus() == want
    assert rwkv_engine.load().lanes == want and rwkv_engine.load(threads=3).lanes == 3


def features(program="print(*sorted(cpu._features()))", **variables):
    """What a fresh process may use, compiling for a processor that the variables name."""
    program = f"from rwkv_engine.system import cpu; {program}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(cpu.ARCHITECTURE != "arm", reason="LLVM is asked about this machine's own architecture")
@pytest.mark.parametrize(
    ("name", "there"), [("cortex-a72", False), ("cortex-a76", True), ("neoverse-n2", True)]
)
def test_an_arm_processor_has_dot_products_if_llvm_uses_them(name, there, monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")  # else this machine's own are added, as numba does it
    assert cpu._llvm_uses_sdot(name) == there


@pytest.mark.skipif(cpu.ARCHITECTURE != "x86", reason="names of x86 processors")
@pytest.mark.parametrize(
    ("name", "want"), [("x86-64", []), ("haswell", ["avx2"]), ("alderlake", ["avx2", "avxvnni"])]
)
def test_a_named_processor_has_what_its_kind_has(name, want):
    assert features(NUMBA_CPU_NAME=name) == want


@pytest.mark.skipif(cpu.ARCHITECTURE != "x86", reason="names of x86 processors")
@pytest.mark.parametrize(
    ("name", "want"), [("znver4", "0"), ("znver3", "0"), ("sapphirerapids", "4096"), ("generic", "4096")]
)
def test_weights_are_prefetched_for_all_but_zen(name, want):
    assert features("from rwkv_engine.kernels.pointers import AHEAD; print(AHEAD)", NUMBA_CPU_NAME=name) == [
        want
    ]


@pytest.mark.parametrize(("there", "answer", "want"), [(True, 0, True), (True, -1, False), (False, 0, False)])
def test_amx_needs_the_processor_and_the_systems_leave(there, answer, want, monkeypatch):
    asked = []
    monkeypatch.setattr(cpu, "_features", lambda: frozenset({"amx-tile", "amx-int8"} if there else {"avx2"}))
    monkeypatch.setattr(cpu, "_system_call", lambda *numbers: asked.append(numbers) or answer)
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cpu.sys, "platform", "linux")
    assert cpu.has_tiles.__wrapped__() == want
    assert asked == [(158, 0x1023, 18)] * there  # ARCH_REQ_XCOMP_PERM for the tile registers


@pytest.mark.skipif(
    not (sys.platform == "linux" and cpu.platform.machine() == "x86_64"),
    reason="a system call of Linux on x86-64",
)
def test_a_system_call_is_made_or_refused():
    assert cpu._system_call(39) == os.getpid()
    assert cpu._system_call(158, 0x1023, 63) == -1  # there is no such state
