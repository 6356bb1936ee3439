"""A command of a cell, which ends when the study that runs it does: `python -m experiments.study.child train …`.

A study that was killed would otherwise leave commands at work in the directories in which the same study goes on.
"""

import os
import runpy
import signal
import threading


def _end_with_the_study() -> None:
    os.read(0, 1)  # not `sys.stdin`, whose lock this thread would still hold when the interpreter ends
    # At once: what was written before is whole, and the next study goes on from there.
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    runpy.run_module("derta", run_name="__main__", alter_sys=True)
