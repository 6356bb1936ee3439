"""Imports of all that the commands import, before the forks."""

import os
from importlib import import_module

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"


def import_everything() -> None:
    """Import every command, and make what is large small enough to be reached in a test."""
    import torch

    from derta.cli import COMMANDS

    for name in COMMANDS:
        if name != "demo":
            import_module("derta.commands." + name.replace(" ", "_").replace("-", "_"))
    for module in (
        "derta.training.run",
        "derta.evaluation.run",
        "derta.report.html",
        "derta.evaluation.quality",
        "pyarrow.parquet",
    ):
        import_module(module)
    torch.set_num_threads(1)
    from derta.data import cached_source
    from derta.training import dataset

    cached_source._MIN_BYTES_TO_CACHE = 2**13
    dataset._MIN_ROWS_TO_CACHE = 30
