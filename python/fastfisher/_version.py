"""The version, in the one place where packaging and the library both read it."""

__version__ = "0.1.0"
