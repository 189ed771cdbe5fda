"""Files: a representation as plain arrays in an .npz, no pickle, written whole or not at all."""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher._ops.border import takes_tensors
from fastfisher.errors import FileFormatError

if TYPE_CHECKING:
    import zipfile

    from fastfisher.fisher.protocol import Fisher

__all__ = ["load", "save"]

FORMAT = "fastfisher"
VERSION = 1
# What the numbers mean; a reader that knows other conventions must refuse.
CONVENTIONS = {
    "fisher": "sums of w s* s^T; reduction 'mean' divides by weight_sum when read",
    "dense_layout": "panels of 192 bytes of rows, columns 0 to the panel's end contiguous",
    "block_layout": "squares up to 192 bytes a row, else dense_layout from a multiple of 64 bytes; "
    "then F[b + 1, b], C order",
    "complex": "dense sums are the real form, blocks [[Re, -Im], [Im, Re]], of half conj F",
    "decay": "weighs the old",
}
_HEADER_LIMIT = 2**24  # bytes; a network of 10⁵ layers has 2²³
_SHOWN = 40  # characters of a name in that of its temporary file; a name may have 255 bytes
_STORED = 0  # zipfile.ZIP_STORED; zipfile and json are imported when a file is


def save(path: str | bytes | os.PathLike[str], name: str, state: dict[str, Any]) -> None:
    """Write a representation's state: arrays as they are, the rest in a header of JSON.

    The bytes go to a new file in the same folder, are forced to the disk and then take the name,
    so a kill at any moment leaves the old file or the new one, and of two that save at once one
    wins. A link stays a link, and the file that was there passes on its permissions.
    """
    import json

    path = Path(os.path.realpath(os.fsdecode(path)))
    replaced = _replaceable(path)
    arrays = {key: np.asarray(v) for key, v in state.items() if hasattr(v, "dtype")}
    plain = {key: value for key, value in state.items() if key not in arrays}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "class": name,
        "conventions": CONVENTIONS,
        "state": plain,
    }
    temporary = path.with_name(f".{path.name[:_SHOWN]}.{os.urandom(8).hex()}")
    try:
        with temporary.open("xb") as file:
            if replaced is not None:
                temporary.chmod(stat.S_IMODE(replaced.st_mode))
            np.savez(file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _replaceable(path: Path) -> os.stat_result | None:
    """Return what is known of the file that is to be replaced, None if there is none yet.

    Taking a name asks for no permission on what had it, be it a device: so this asks.
    """
    try:
        old = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "expected a file or a new name, got a device", str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return old


@takes_tensors
def load(path: str | bytes | os.PathLike[str], *, like: Any = None) -> "Fisher":
    """Read a representation that ``Fisher.save`` wrote.

    Parameters
    ----------
    path : str or path
        Nothing in the file is executed, and nothing larger than the file is allocated.
    like : array, optional
        An array of the kind that it shall hold, such as one of CuPy's; NumPy's if left out.

    Returns
    -------
    Fisher
        Of the class that was saved.

    Raises
    ------
    FileFormatError
        If the file is not ours, is damaged, or is from a newer version.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff, tempfile, os
    >>> F = ff.DenseFisher.from_scores(np.eye(3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     F.save(os.path.join(folder, "f.npz"))
    ...     ff.load(os.path.join(folder, "f.npz")).n_samples
    3
    """
    import zipfile
    from tokenize import TokenError

    from fastfisher._ops import ops_of
    from fastfisher.fisher import REPRESENTATIONS

    path = Path(os.fsdecode(path))
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # which might never end
        raise _unreadable(path, "a device")
    try:
        # The path may name another file by now: its size is asked of the one that is read.
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > os.fstat(file.fileno()).st_size:
                raise _unreadable(path, "arrays that are compressed or larger than the file")
            arrays = {info.filename.removesuffix(".npy"): info for info in infos}
            header = _header(path, archive, arrays.pop("header", None))
            state: dict[str, Any] = dict(header["state"])
            for key, info in arrays.items():
                state[key] = _array(path, archive, info)
        kind = REPRESENTATIONS.get(header["class"])
        if kind is None:
            raise _unreadable(path, f"the class {header['class']!r}")
        loaded: Fisher = kind._from_state(state)
    except FileFormatError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file that is not there, or not to be read
            raise
        # A damaged offset led outside the file.
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    except (
        zipfile.BadZipFile, LookupError, TypeError, ValueError, EOFError, NotImplementedError,
        RuntimeError, AttributeError, RecursionError, OverflowError, UnicodeError, TokenError,
        SyntaxError,
    ) as error:  # fmt: skip
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    ops = ops_of(like)
    return loaded if ops.here() == "" else loaded._moved(ops)


def _header(
    path: Path, archive: "zipfile.ZipFile", info: "zipfile.ZipInfo | None"
) -> dict[str, Any]:
    import json

    if info is None:
        raise _unreadable(path, "a file without a header")
    if info.file_size > _HEADER_LIMIT:
        raise _unreadable(path, f"a header of {info.file_size} bytes")
    header: dict[str, Any] = json.loads(str(_array(path, archive, info)[()]))
    if header["format"] != FORMAT:
        raise _unreadable(path, f"the format {header['format']!r}")
    if header["version"] != VERSION:
        raise _unreadable(path, f"version {header['version']!r}, where {VERSION} can be read")
    if header["conventions"] != CONVENTIONS:
        raise _unreadable(path, "other conventions")
    return header


def _array(path: Path, archive: "zipfile.ZipFile", info: "zipfile.ZipInfo") -> Any:
    """Read one array, after its size on disk was held against what its header asks for."""
    if info.compress_type != _STORED:
        raise _unreadable(path, f"{info.filename} compressed")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise _unreadable(path, f"{info.filename} in .npy version {version}")
        need = dtype.itemsize
        for extent in shape:
            need *= extent
        sizes = all(0 <= extent <= sys.maxsize for extent in shape)
        if dtype.hasobject or not sizes or file.tell() + need != info.file_size:
            raise _unreadable(path, f"{info.filename} of a size that its header does not say")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _unreadable(path: Path, got: str) -> FileFormatError:
    return FileFormatError(
        f"{path}: expected a file that fastfisher saved, got {got}. Save it again."
    )
