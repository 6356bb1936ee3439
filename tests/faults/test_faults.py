"""The short form of `python -m tests.faults`: some faults, drawn anew for each version of this file's seed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc, which builds what lets writes fail"),
]
FAULTS = int(os.environ.get("DERTA_FAULTS_COUNT", "22"))


def test_faults_lose_nothing_and_are_told_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--faults", str(FAULTS), "--quick"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60 * FAULTS + 600,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-6000:]
    assert re.search(rf"^{FAULTS} faults, 0 went wrong", told, re.MULTILINE)
