"""Files in a hard world: killed writers, full disks, links, permissions, rivals, and damage."""

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import fuzz_load
import oracle
from test_processes import forks, quiet

OLD, NEW = ff.DiagonalFisher.from_scores(oracle.draw(3, 2)), ff.DenseFisher.from_scores(np.eye(300))

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX")


# ---- kills and full disks ----
def forked(job: Callable[..., Any]) -> int:
    """Run a job in a child, and return the number of the child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@quiet
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path, chance = tmp_path / "f.npz", random.Random(0)
    OLD.save(path)

    def job() -> None:
        while True:
            NEW.save(path)
            OLD.save(path)

    for _ in range(12):
        child = forked(job)
        time.sleep(0.02 * chance.random())
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        assert type(ff.load(path)) in (ff.DiagonalFisher, ff.DenseFisher)


@forks
@quiet
@pytest.mark.parametrize("step", ["open", "chmod", "savez", "flush", "fsync", "replace"])
def test_a_kill_before_each_step_leaves_the_old_file(step: str, tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    OLD.save(path)

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def job() -> None:
        if step == "savez":
            np.savez = kill
        elif step == "flush":  # the array is written, in part to a buffer
            savez: Any = np.savez

            def write_and_die(*args: Any, **keywords: Any) -> None:
                savez(*args, **keywords)
                kill()

            np.savez = write_and_die
        elif step == "fsync":
            os.fsync = kill
        else:
            setattr(Path, step, kill)
        NEW.save(path)

    assert exit_code(forked(job)) == -signal.SIGKILL
    assert isinstance(ff.load(path), ff.DiagonalFisher)


@forks
@quiet
@pytest.mark.parametrize("room", [0, 1, 1000, 300_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(room: int, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "f.npz"
    OLD.save(path)
    before = path.read_bytes()

    def job() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        try:
            NEW.save(path)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
        else:
            raise AssertionError

    assert exit_code(forked(job)) == 0
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@forks
@quiet
def test_of_rivals_one_wins_and_readers_see_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    OLD.save(path)
    rivals = [forked(lambda F=F: [F.save(path) for _ in range(20)]) for F in (OLD, NEW)]
    for _ in range(20):
        assert type(ff.load(path)) in (ff.DiagonalFisher, ff.DenseFisher)
    assert [exit_code(rival) for rival in rivals] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


# ---- what is there already ----
@posix
def test_a_link_stays_and_permissions_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "data" / "f.npz", tmp_path / "link.npz"
    path.parent.mkdir()
    link.symlink_to(path)
    OLD.save(link)  # to where it leads, though nothing is there yet
    path.chmod(0o640)
    NEW.save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert isinstance(ff.load(path), ff.DenseFisher)
    assert list(path.parent.iterdir()) == [path]


@posix
def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        OLD.save(tmp_path / "f.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f.npz").stat().st_mode) == 0o640


def test_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        OLD.save(tmp_path)
    with pytest.raises(OSError, match=str(tmp_path.name)):
        ff.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        OLD.save(tmp_path / "none" / "f.npz")
    assert not list(tmp_path.iterdir())


@posix
def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="expected a file or a new name, got a device"):
        OLD.save(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ff.FileFormatError, match="got a device"):
            ff.load(name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@posix
def test_names_as_long_as_names_may_be_and_names_in_bytes(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 251 + ".npz"), tmp_path / ("ü" * 125 + ".npz")):
        OLD.save(path)
        OLD.save(os.fsencode(path))
        assert ff.load(os.fsencode(path)).n_samples == 3
    assert len(list(tmp_path.iterdir())) == 2


@posix
def test_a_read_only_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.npz"
    OLD.save(path)
    path.chmod(0o444)
    # For the superuser everything is writable: ask as if for somebody else.
    if os.geteuid() == 0:
        monkeypatch.setattr("fastfisher._persist.os.access", lambda *_: False)
    with pytest.raises(PermissionError):
        NEW.save(path)
    assert isinstance(ff.load(path), ff.DiagonalFisher)


# ---- what is in the file ----
def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """Save `OLD` with header and arrays changed."""
    OLD.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    return path


def test_a_file_of_a_newer_version_says_so(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "f.npz", lambda h, _: h.update(version=2, novelty=1))
    with pytest.raises(ff.FileFormatError, match="version 2, where 1 can be read"):
        ff.load(path)


def test_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    def swap(_: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays["sums"] = arrays["sums"].astype(arrays["sums"].dtype.newbyteorder())

    with pytest.raises(ff.FileFormatError, match=r"sums: expected shape .* of float64, got .*>f8"):
        ff.load(rewritten(tmp_path / "f.npz", swap))


def test_members_that_share_their_bytes_do_not_add_up(tmp_path: Path) -> None:
    """A hundred names for one array would take a hundred times the memory of the file."""
    path = tmp_path / "f.npz"
    NEW.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        info = archive.getinfo("sums.npy")
        for i in range(100):
            twin = zipfile.ZipInfo(f"x{i}.npy")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, name, getattr(info, name))
            archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ff.FileFormatError, match="larger than the file"):
        ff.load(path)


def test_an_archive_of_the_header_alone_is_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "f.npz", lambda _, arrays: arrays.clear())
    with pytest.raises(ff.FileFormatError, match=r"IndexError|KeyError"):
        ff.load(path)


@pytest.mark.slow
def test_the_header_of_a_deep_network_fits(tmp_path: Path) -> None:
    shapes = [(1, 1)] * 9000
    K = ff.KroneckerFisher(shapes)
    K.save(tmp_path / "f.npz")
    again: Any = ff.load(tmp_path / "f.npz")
    assert again.shapes == shapes


def test_the_damage_can_be_done_without_resource() -> None:
    """Which Windows has not."""
    code = "import sys; sys.modules['resource'] = None; import fuzz_load; fuzz_load.most_memory()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    count, findings = fuzz_load.run(tmp_path, cases=300)
    assert count == 300
    assert not findings, "\n".join(f"{damage}: {wrong}" for damage, wrong, _ in findings)
