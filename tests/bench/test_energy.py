"""Energy, read from made-up trees like those of Linux."""

import time

import pytest

from rwkv_engine.bench.energy import SHORTEST, Energy, Meter


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_processor_packages_are_added_up_and_their_parts_are_not(tmp_path):
    zones = [
        write(
            tmp_path / "powercap" / f"intel-rapl:{n}",
            name=f"package-{n}",
            energy_uj=1_000_000,
            max_energy_range_uj=10**9,
        )
        for n in (0, 1)
    ]
    part = write(
        tmp_path / "powercap" / "intel-rapl:0:0", name="core", energy_uj=0, max_energy_range_uj=10**9
    )
    write(tmp_path / "powercap" / "intel-rapl:2", name="psys", energy_uj=0, max_energy_range_uj=10**9)
    meter = Meter(tmp_path)
    meter.start()
    write(zones[0], energy_uj=3_500_000)
    write(zones[1], energy_uj=2_000_000)
    write(part, energy_uj=900_000_000)
    found = meter.stop()
    assert (found.joules, found.source) == (3.5, "powercap package-0, package-1") and found.seconds > 0


def test_a_counter_that_starts_again_is_followed(tmp_path):
    zone = write(
        tmp_path / "powercap" / "intel-rapl:0",
        name="package-0",
        energy_uj=9_000_000,
        max_energy_range_uj=10_000_000,
    )
    meter = Meter(tmp_path)
    meter.start()
    write(zone, energy_uj=500_000)
    assert meter.stop().joules == 1.5


def test_sockets_of_hwmon_are_used_where_there_is_no_powercap(tmp_path):
    device = write(
        tmp_path / "hwmon" / "hwmon3",
        name="amd_energy",
        energy1_input=5,
        energy1_label="Ecore000",
        energy2_input=1_000_000,
        energy2_label="Esocket0",
    )
    meter = Meter(tmp_path)
    meter.start()
    write(device, energy1_input=9_999_999, energy2_input=3_000_000)
    found = meter.stop()
    assert (found.joules, found.source) == (2.0, "hwmon amd_energy")


@pytest.mark.parametrize(
    ("place", "files", "watts"),
    [
        ("hwmon/hwmon0", {"name": "ina226", "power1_input": 4_200_000}, 4.2),
        ("power_supply/BAT0", {"type": "Battery", "status": "Discharging", "power_now": 11_000_000}, 11.0),
        (
            "power_supply/BAT1",
            {
                "type": "Battery",
                "status": "Discharging",
                "current_now": -1_000_000,
                "voltage_now": 12_000_000,
            },
            12.0,
        ),
    ],
)
def test_a_power_is_sampled_and_multiplied_by_the_time(tmp_path, place, files, watts):
    write(tmp_path / place, **files)
    meter = Meter(tmp_path)
    meter.start()
    time.sleep(SHORTEST + 0.05)
    found = meter.stop()
    assert isinstance(found, Energy) and found.joules == pytest.approx(watts * found.seconds)
    meter.start()
    assert "too short" in meter.stop()


def test_where_nothing_can_be_read_a_sentence_says_so(tmp_path):
    write(tmp_path / "power_supply" / "BAT0", type="Battery", status="Charging", power_now=9)
    write(tmp_path / "hwmon" / "hwmon0", name="coretemp", temp1_input=40_000)
    meter = Meter(tmp_path)
    meter.start()
    assert meter.stop().startswith("energy: none could be read") and Meter(
        tmp_path / "missing"
    ).stop().endswith(")")


def test_a_counter_that_only_root_reads_is_named(tmp_path):
    zone = write(tmp_path / "powercap" / "intel-rapl:0", name="package-0")
    (zone / "energy_uj").mkdir()  # cannot be read, whoever asks
    meter = Meter(tmp_path)
    meter.start()
    assert f"{zone / 'energy_uj'} may only be read by root" in meter.stop()


def test_a_source_that_goes_away_is_no_zero(tmp_path):
    zone = write(tmp_path / "powercap" / "intel-rapl:0", name="package-0", energy_uj=5)
    meter = Meter(tmp_path)
    meter.start()
    (zone / "energy_uj").unlink()
    assert "stopped telling" in meter.stop()
