"""Files: what is loaded is what was saved, and a bad file is refused."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle


def example() -> ff.DenseFisher:
    return ff.DenseFisher.from_scores(oracle.draw(20, 5), center=True)


@pytest.mark.parametrize("dtype", [*oracle.DTYPES, *oracle.COMPLEX])
@pytest.mark.parametrize(
    "kind",
    [ff.DenseFisher, ff.DiagonalFisher, ff.LowRankFisher, ff.ScoreFisher, ff.SquareRootFisher],
)
def test_round_trip(kind: type[Any], dtype: type[np.inexact], tmp_path: Path) -> None:
    S = oracle.draw(20, 50, dtype)
    weights = oracle.draw_weights(20)
    size = {"rank": 4} if kind is ff.LowRankFisher else {}
    F = kind.from_scores(S, **size, weights=weights, center=True, reduction="sum")
    F.save(tmp_path / "f.npz")
    G: Any = ff.load(str(tmp_path / "f.npz"))
    assert repr(G) == repr(F)
    assert np.array_equal(G.to_dense(), F.to_dense())
    if kind is not ff.ScoreFisher:
        assert np.array_equal(G.update(S).to_dense(), F.update(S).to_dense())


def test_the_header_tells_the_conventions(tmp_path: Path) -> None:
    example().save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
    assert header["format"] == "fastfisher"
    assert header["version"] == 1
    assert header["class"] == "DenseFisher"
    assert header["state"]["reduction"] == "mean"
    assert "weighs the old" in header["conventions"]["decay"]


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.npz"
    example().save(path)
    before = path.read_bytes()

    def fail(*_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("fastfisher._persist.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        ff.DenseFisher(9).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ff.load(tmp_path / "nothing.npz")


def rewritten(tmp_path: Path, change: Callable[..., Any]) -> Path:
    """Save the example with its header or arrays changed."""
    example().save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    np.savez(tmp_path / "g.npz", header=np.array(json.dumps(header)), **arrays)
    return tmp_path / "g.npz"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, _: h.update(version=2), "version 2, where 1 can be read"),
        (lambda h, _: h.update(format="other"), "the format 'other'"),
        (lambda h, _: h.update({"class": "Fisher"}), "the class 'Fisher'"),
        (lambda h, _: h.update({"class": "__all__"}), "the class '__all__'"),
        (lambda h, _: h.update(conventions={}), "other conventions"),
        (lambda h, _: h["state"].update(n_params=10**6), "sums: expected shape"),
        (lambda h, _: h["state"].update(n_params=30), "sums: expected shape"),
        (lambda h, _: h["state"].update(dtype="float32"), "sums: expected shape"),
        (lambda h, _: h["state"].update(weight_sum=-1.0), "weight_sum: expected"),
        (lambda h, _: h["state"].pop("center"), "KeyError"),
        (lambda _, a: a.pop("sums"), "KeyError"),
        (lambda _, a: a.pop("mean"), "KeyError"),
        (lambda _, a: a.update(mean=a["mean"][:-1]), "mean: expected shape"),
        (lambda _, a: a.update(sums=a["sums"].astype("f4")), "sums: expected shape"),
    ],
)
def test_damaged_states(change: Callable[..., Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ff.FisherError, match=message):
        ff.load(rewritten(tmp_path, change))


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    for content in (b"", b"not a zip", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ff.FileFormatError, match="expected a file that fastfisher saved"):
            ff.load(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(ff.FileFormatError, match="without a header"):
        ff.load(path)
    example().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ff.FileFormatError):
        ff.load(path)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ff.FileFormatError):
        ff.load(path)


def test_sizes_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    huge = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(huge, header)
    example().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.npy", huge.getvalue())
    with pytest.raises(ff.FileFormatError, match=r"extra\.npy of a size that its header"):
        ff.load(path)
    example().save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(10**7))
    with pytest.raises(ff.FileFormatError, match="larger than the file"):
        ff.load(path)


def test_an_offset_that_leads_outside_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    ff.DiagonalFisher.from_scores(np.ones((2, 3))).save(path)
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\5\6") + 16  # where the end record says the directory begins
    start = int.from_bytes(content[directory : directory + 4], "little")
    content[directory : directory + 4] = (start + 10).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(ff.FileFormatError, match="expected a file that fastfisher saved"):
        ff.load(path)


def test_an_array_header_that_does_not_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    ff.DiagonalFisher.from_scores(np.ones((2, 3))).save(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(), }", b"((, }").replace(b"(3,), }", b"((3,, }"))
    with pytest.raises(ff.FileFormatError, match="expected a file that fastfisher saved"):
        ff.load(path)


@pytest.mark.parametrize(
    ("descr", "shape", "message"),
    [(",f8", (1,), "SyntaxError"), ("<f8", (0, 2**63), r"extra\.npy of a size that its header")],
)
def test_what_an_hour_of_damaged_files_found_is_named(
    descr: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    path, array = tmp_path / "f.npz", io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(array, header)
    example().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.npy", array.getvalue())
    with pytest.raises(ff.FileFormatError, match=message):
        ff.load(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ff.load(tmp_path / "nothing.npz")
