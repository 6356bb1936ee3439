"""What benchmarks share: a description of the machine, a stopwatch and peak memory."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers


def environment(device: str, **more: str) -> dict[str, object]:
    """Versions and device, for the raw results."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        **more,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
    }


def in_own_process(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a script and return what its last line says, as JSON."""
    ended = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stderr)
    row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return row


class Stopwatch:
    """Seconds since its making, after all work on the device: wall clock, and CPU time of this process."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._wait()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return both."""
        self._wait()
        return time.perf_counter() - self._wall, time.process_time() - self._cpu

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()


class PeakMemory:
    """Bytes that were held at most since its making, beyond those held at its making.

    On CUDA what tensors took; on Linux the resident memory of the process, which includes what the matrix
    multiplications pack for themselves.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
            self._before = _status("VmRSS")

    def read(self) -> int:
        """Return bytes."""
        peak = torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")
        return peak - self._before


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
