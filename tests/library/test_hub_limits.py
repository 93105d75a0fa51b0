"""A hub that sends more, or other things, than it promised; and what pulling asks of the network and changes
in a process.
"""

# ruff: noqa: F811  # fixtures that are imported
import gzip
import os
import subprocess
import sys
import tracemalloc

import pytest
from test_hub import files, home, hub, small  # noqa: F401  # fixtures

from rwkv_engine import DownloadError, pull
from rwkv_engine.library import registry


def test_pulling_leaves_the_callers_environment_as_it_was(hub, small):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    program = (
        "import os, sys\nbefore = dict(os.environ)\nfrom rwkv_engine import pull\n"
        "pull('someone/tiny', format='keep', endpoint=sys.argv[1])\nassert dict(os.environ) == before, os.environ"
    )
    done = subprocess.run([sys.executable, "-c", program, hub.url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all("tiny" in path for _, path, _ in hub.asked)  # nothing else was asked of the network


def test_a_file_that_does_not_end_is_stopped_at_the_promised_size(hub, small):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    hub.endless["/large/someone/tiny/m.safetensors"] = bytes(1 << 16)
    with pytest.raises(DownloadError, match=f"more came than the {len(small)} bytes"):
        pull("someone/tiny", endpoint=hub.url)
    assert hub.sent < 64 << 20 and files() == [] and registry.names() == []


def test_a_listing_that_does_not_end_is_stopped(hub):
    hub.endless["/api/models/someone/tiny"] = b'{"sha": "' + b"0" * (1 << 16)
    tracemalloc.start()
    with pytest.raises(DownloadError, match="list of files is over"):
        pull("someone/tiny", endpoint=hub.url)
    assert hub.sent < 64 << 20 and tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("path", ["/api/models/someone/tiny", "/large/someone/tiny/m.safetensors"])
def test_what_was_not_to_be_compressed_is_not_unpacked(hub, small, path):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    hub.endless[path], hub.encoding[path] = gzip.compress(bytes(64 << 20)), "gzip"
    tracemalloc.start()
    with pytest.raises(DownloadError, match="compressed"):
        pull("someone/tiny", endpoint=hub.url)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20 and sum(map(os.path.getsize, downloads())) == 0
    tracemalloc.stop()


def downloads():
    return [path for path in registry.downloads_folder().rglob("*") if path.is_file()]


def test_addresses_that_lead_nowhere_are_refused_and_never_get_the_token(hub, small, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.files["someone/tiny"] = {"m.safetensors": small}
    api = "/api/models/someone/tiny"
    for there, message in (
        (f"{hub.url}{api}", "from one address to the next"),
        (f"{hub.elsewhere}/elsewhere", "points to http://localhost"),
        ("file:///etc/passwd", "points to file"),
        ("http://[::1", "ValueError"),
    ):
        hub.points[api] = there
        with pytest.raises(DownloadError, match=message) as refused:
            pull("someone/tiny", endpoint=hub.url)
        assert "\n" not in str(refused.value)
    assert len(hub.asked) < 20 and hub.trusted == {api}


@pytest.mark.parametrize(
    "listing", ["[" * 100_000, "[]", "{}", '{"sha": 5}', '{"sha": "%s", "siblings": [5]}', "{"]
)
def test_a_listing_that_is_none_is_one_sentence(hub, listing):
    hub.texts["/api/models/someone/tiny"] = listing.replace("%s", "a" * 40).encode()
    with pytest.raises(DownloadError) as refused:
        pull("someone/tiny", endpoint=hub.url)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_a_hub_that_sends_all_again_instead_of_the_rest_is_understood(hub, small):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    hub.cut, hub.no_ranges = [1000], True
    record = pull("someone/tiny", format="keep", endpoint=hub.url)
    assert registry.path_of(record).read_bytes() == small and len(hub.ranges()) == 2
