"""Training: token trees, the objective, the configuration and the trainer."""

from derta.training.config import DeRTaConfig
from derta.training.trainer import DeRTaTrainer
from derta.training.tree import Term

__all__ = ["DeRTaConfig", "DeRTaTrainer", "Term"]
