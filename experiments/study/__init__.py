"""Studies: worlds × variants × seeds of the organism, trained, attacked and compared in pairs.

Public: `load_study`, `run_study`, `collect`.
"""

from experiments.study.cells import run_study
from experiments.study.numbers import collect
from experiments.study.plan import load_study

__all__ = ["collect", "load_study", "run_study"]
