"""What only the project itself runs: studies, methods to compare with, the organism's bases, and their results.

Kept and tested, not shipped: this imports `derta`, never the other way. Each part is a command of its own in a clone,
such as `python -m experiments.study FILE`; methods to compare with are trained by `derta train --method NAME`.
"""
