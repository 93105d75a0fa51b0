"""Writing files: whole or not at all, with the permissions they should have, and never over what is no file."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from rwkv_engine.system import files
from rwkv_engine.system.files import remove_abandoned, remove_leftovers, write_whole

WRITER = """
import sys, time
from rwkv_engine.system.files import write_whole
def parts():
    yield b"half"
    print("at work", flush=True)
    time.sleep(60)
write_whole(sys.argv[1], parts())
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is in the middle of writing tmp_path/"f"."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "f")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.communicate()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_threads_that_write_at_once_leave_the_umask_alone(tmp_path, usual_umask, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write(name):
        for _ in range(300):
            write_whole(tmp_path / name, [b"x"])

    try:
        threads = [threading.Thread(target=write, args=(f"{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    probe = tmp_path / "probe"
    probe.touch()
    assert mode(probe) == 0o644 and {mode(tmp_path / f"{n}") for n in range(4)} == {0o644}


def test_writing_never_asks_for_the_umask_which_can_only_be_read_by_setting_it(tmp_path, monkeypatch):
    def refuse(mask):
        raise AssertionError("os.umask is called")

    monkeypatch.setattr(os, "umask", refuse)
    write_whole(tmp_path / "f", [b"x"])


def test_a_new_file_is_as_the_umask_says_and_an_old_one_keeps_its_permissions(tmp_path, usual_umask):
    write_whole(tmp_path / "f", [b"x"])
    write_whole(tmp_path / "own", [b"x"], private=True)
    assert mode(tmp_path / "f") == 0o644 and mode(tmp_path / "own") == 0o600
    (tmp_path / "f").chmod(0o600)
    write_whole(tmp_path / "f", [b"y"])
    assert mode(tmp_path / "f") == 0o600 and (tmp_path / "f").read_bytes() == b"y"


def test_a_link_is_followed_to_its_target(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "f").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/f")
    (tmp_path / "new").symlink_to("there/g")
    for name, target in (("link", "f"), ("new", "g")):
        write_whole(tmp_path / name, [b"new"])
        assert (tmp_path / name).is_symlink() and (tmp_path / "there" / target).read_bytes() == b"new"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError):
        write_whole(tmp_path / "round", [b"x"])
    assert (tmp_path / "round").is_symlink()


def test_a_fifo_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    read = []
    thread = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_bytes()), daemon=True)
    thread.start()
    write_whole(tmp_path / "fifo", [b"x" * 100_000, b"y"])
    thread.join(10)
    assert read == [b"x" * 100_000 + b"y"] and stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_written_to_and_stays_one(tmp_path):
    null = tmp_path / "null"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    write_whole(null, [b"x"])
    assert stat.S_ISCHR(null.stat().st_mode) and list(tmp_path.iterdir()) == [null]


def test_what_is_neither_a_file_nor_a_stream_is_refused_in_one_sentence(tmp_path):
    import socket

    folder = tmp_path / "folder"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, words in ((folder, "folder"), (tmp_path / "socket", "no ordinary file")):
            with pytest.raises(OSError, match=words) as refused:
                write_whole(path, [b"x"])
            assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "socket"]


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    for name in ("x" * 255, "ä" * 127):
        write_whole(tmp_path / name, [b"x"])
        remove_leftovers(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"x"


def test_a_file_at_work_is_left_alone_and_one_of_a_killed_process_is_deleted(tmp_path, writer):
    (part,) = tmp_path.iterdir()
    remove_leftovers(tmp_path / "f")
    assert part.exists()
    writer.kill()
    writer.wait()
    remove_leftovers(tmp_path / "other")
    assert part.exists()
    remove_leftovers(tmp_path / "f")
    assert not part.exists()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="namespaces need root and unshare"
)
def test_a_container_that_shares_the_folder_leaves_files_at_work_alone(tmp_path, writer):
    """Process numbers mean nothing there."""
    (part,) = tmp_path.iterdir()
    clean = "import sys; from rwkv_engine.system.files import remove_leftovers; remove_leftovers(sys.argv[1])"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", clean, str(tmp_path / "f")]
    done = subprocess.run(inside, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.returncode == 0 and part.exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_where_there_are_no_locks_age_decides(tmp_path, monkeypatch, kind):
    def refuse(handle, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    left = tmp_path / "left"
    left.mkdir() if kind == "folder" else left.touch()
    remove_abandoned(left)
    assert left.exists()
    os.utime(left, (1e9, 1e9))
    remove_abandoned(left)
    assert not left.exists()
    write_whole(tmp_path / "f", [b"x"])


def test_a_temporary_file_that_is_taken_for_a_leftover_is_made_anew(tmp_path, monkeypatch):
    """Another process may lock it between its making and its locking."""
    taken = []

    def flock(handle, how):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()

    monkeypatch.setattr(files.fcntl, "flock", flock)
    write_whole(tmp_path / "f", [b"x"])
    assert taken and [path.name for path in tmp_path.iterdir()] == ["f"]


def test_every_verb_that_writes_follows_links_and_refuses_folders(
    tmp_path, rwkv, checkpoints, tokenizer_file
):
    """The verbs that write files, each to a link, and to a folder."""
    source = checkpoints("7", "BF16", vocab=64)[0]
    state = tmp_path / "s.safetensors"
    rwkv("generate", "Once", "--max-tokens", "1", "--save-state", state)
    rwkv("chat", "--session", "x", "--max-tokens", "1", text="Hello\n")
    verbs = {
        "quantized": ("quantize", source, "LINK", "--tokenizer", tokenizer_file, "--force"),
        "state": ("generate", "Once", "--max-tokens", "1", "--save-state", "LINK"),
        "blend": ("state", "blend", state, state, "-o", "LINK", "--force"),
        "export": ("sessions", "export", "x", "-o", "LINK"),
    }
    for name, words in verbs.items():
        link = tmp_path / name
        link.symlink_to(f"{name}-target")
        rwkv(*(link if word == "LINK" else word for word in words))
        assert link.is_symlink() and (tmp_path / f"{name}-target").stat().st_size, name
        folder = tempfile.mkdtemp(dir=tmp_path)
        assert "folder" in rwkv(*(folder if word == "LINK" else word for word in words), status=2), name
