"""Decoupled Refusal Training (DeRTa): train language models to refuse at any position of a response."""

from typing import TYPE_CHECKING, Any

from derta.version import __version__

if TYPE_CHECKING:
    from derta.data import load_triples
    from derta.training import DeRTaConfig, DeRTaTrainer

__all__ = ["DeRTaConfig", "DeRTaTrainer", "__version__", "load_triples"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: `derta --help` need not wait for torch."""
    if name == "load_triples":
        from derta.data import load_triples

        return load_triples
    if name in ("DeRTaConfig", "DeRTaTrainer"):
        import derta.training

        return getattr(derta.training, name)
    raise AttributeError(f"module 'derta' has no attribute {name!r}")
