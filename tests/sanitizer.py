"""Marks tests of how much memory is used, as the address sanitizer uses several times more."""

import os

import pytest

# The session `sanitize` loads the sanitizer's library before Python.
memory_is_as_asked_for = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="the address sanitizer keeps what is freed, and a shadow of all memory",
)
