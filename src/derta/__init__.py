"""Decoupled Refusal Training (DeRTa): train language models to refuse at any position of a response."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from derta.version import __version__

if TYPE_CHECKING:
    from derta.data import load_triples
    from derta.evaluation.results.gate import gate
    from derta.evaluation.run import evaluate
    from derta.training import DeRTaConfig, DeRTaTrainer

__all__ = ["DeRTaConfig", "DeRTaTrainer", "__version__", "evaluate", "gate", "load_triples"]

_MODULES = {
    "DeRTaConfig": "derta.training",
    "DeRTaTrainer": "derta.training",
    "evaluate": "derta.evaluation.run",
    "gate": "derta.evaluation.results.gate",
    "load_triples": "derta.data",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: `derta --help` need not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'derta' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
