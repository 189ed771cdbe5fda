"""The only door to arrays: picks the verbs that serve an array's type.

Every kind of array has one file with the same verbs, written out in ``numpy_ops``:

* in and out: ``to_array``, ``to_vector``, ``to_output``, ``empty``, ``zeros``, ``to_host`` and
  ``from_host`` of arrays, triangles and the like
* about them: ``name`` of the library, ``here``, the device, ``available_bytes`` there, and
  ``held_dtype``, in which sums are kept
* looking: ``least_and_sum``, ``first_bad_weight``, ``all_finite``, ``worst_residual``
* on scores: ``column_mean``, ``diagonal``, ``fvp``, ``recombine``, ``scores_dot``,
  ``scores_transpose_dot``
* symmetric matrices: ``Triangle`` and the ``Factor`` that its ``cholesky`` gives, ``Blocks`` and
  the ``BlockFactor`` of a block-diagonal or block-tridiagonal one
* their square roots: ``Root``, the R of a QR factorisation
* layers of a network: ``Patches``, one side of a layer, and ``LayerScores``, both together
* iterations: ``cg_scores``, ``cg_triangle``, ``cg_callable``, and ``shifted_cg_…`` for paths
* ``product`` of two real matrices
* ``xp``, the namespace for element-wise arithmetic, and ``eigh``

Complex numbers of NumPy have the same verbs in files of their own; `for_dtype` goes from one to the
other. For libraries of arrays on a device the verbs are written once, in ``device_…``, on an
`Engine` that does what array expressions are slow at.

Batches have verbs of their own, written out in ``numpy_batch``: ``to_array``, ``to_vector``,
``factored``, ``fisher``, ``extended``, the ``policies`` they have, ``xp``; `batch_of` picks them.

To serve another kind, write ``<kind>_ops.py`` with these verbs and add its line to `KINDS`.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from fastfisher._ops import numpy_complex, numpy_ops
from fastfisher._ops.border import stands_for_tensors

__all__ = ["KINDS", "VERBS", "batch_of", "for_dtype", "is_numpys", "on_host", "ops_of"]

# Top-level package of an array's type -> module of verbs. Tensors have none: `border` turns them
# into arrays of the others before they come here.
KINDS: dict[str, str | None] = {"cupy": "fastfisher._ops.cupy_ops", "torch": None}

# Those of complex numbers are all of them; every other kind has at least these.
VERBS = tuple(numpy_complex.__all__)

_complex: dict[ModuleType, ModuleType] = {numpy_ops: numpy_complex}
_known: dict[type, ModuleType] = {numpy_ops.ndarray: numpy_ops, type(None): numpy_ops}


def ops_of(array: Any) -> ModuleType:
    """Return the verbs for `array`; anything that NumPy can read as an array is NumPy's."""
    kind = type(array)
    ops = _known.get(kind)
    if ops is None:
        ops = _known[kind] = _find(kind)
    return ops


def is_numpys(value: Any) -> bool:
    """Tell whether NumPy's verbs serve `value`."""
    return ops_of(value) is numpy_ops


def on_host(name: str, value: Any) -> None:
    """Raise if `value` is an array of a device: for what runs on the host alone."""
    if ops_of(value).here() == "":
        return
    package = type(value).__module__.partition(".")[0]
    wanted, got, copy = (
        "a NumPy array",
        f"{package}.{type(value).__name__}",
        f"{package}.asnumpy(x)",
    )
    if stands_for_tensors():
        wanted, got, copy = "a tensor on the CPU", "one on a device", "x.cpu()"
    raise TypeError(
        f"{name}: expected {wanted}, got {got}. This runs on the host alone, and nothing moves "
        f"there unasked: copy it with {copy}."
    )


def for_dtype(ops: ModuleType, dtype: Any) -> ModuleType:
    """Return the verbs for numbers of `dtype`, for arrays of the kind that `ops` serves."""
    return _complex.get(ops, ops) if dtype.kind == "c" else ops


def batch_of(array: Any) -> ModuleType:
    """Return the verbs of batches for `array`: the ``…_batch`` beside its ``…_ops``."""
    package = type(array).__module__.partition(".")[0]
    ops = KINDS.get(package) or numpy_ops.__name__
    return import_module(ops.removesuffix("_ops") + "_batch")


def _find(kind: type) -> ModuleType:
    package = kind.__module__.partition(".")[0]
    if package not in KINDS:
        return numpy_ops
    module = KINDS[package]
    if module is None:
        raise TypeError(
            f"scores: expected an array, got {package}.{kind.__name__} where none is looked for. "
            "Tensors are taken as arguments of public functions and methods, by themselves or in "
            "lists, layers and results."
        )
    return import_module(module)
