"""The installed version of derta."""

from importlib.metadata import version

__version__ = version("derta")
