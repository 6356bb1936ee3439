"""The questions of `docs/lab/`, a script each, run from a clone: `python -m experiments.scripts.other_wordings`."""
