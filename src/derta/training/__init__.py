"""Training: token trees, the objective, the configuration and the trainer."""

from derta.method.tree import Term
from derta.training.config import DeRTaConfig
from derta.training.trainer import DeRTaTrainer

__all__ = ["DeRTaConfig", "DeRTaTrainer", "Term"]
