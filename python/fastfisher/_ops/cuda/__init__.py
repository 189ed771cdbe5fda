"""CUDA sources of our own kernels, as text: whoever compiles them needs no header beside them."""

from functools import cache
from importlib.resources import files

__all__ = ["FILES", "source"]

FILES = ("stream.cu", "prepare.cu", "batch.cu")
_INCLUDE = '#include "numbers.cuh"\n'


@cache
def source(name: str) -> str:
    """Return a file of `FILES` with what it includes."""
    here = files(__name__)
    text, numbers = ((here / part).read_text(encoding="utf-8") for part in (name, "numbers.cuh"))
    return text.replace(_INCLUDE, numbers.replace("#pragma once\n", ""))
