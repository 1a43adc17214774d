"""What the figures were taken on: processor, cores, threads, versions, memory used."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import torch
import transformers


def describe_machine() -> str:
    """One line to print above every table."""
    return (
        f"machine: {_cpu_model()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads;"
        f" {platform.system()}, Python {platform.python_version()}, torch {torch.__version__},"
        f" transformers {transformers.__version__}"
    )


def peak_rss_mb() -> float:
    """Most memory that this process has had resident so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def is_quick() -> bool:
    """Whether `QUICK=1` asks for the small version."""
    return os.environ.get("QUICK", "") not in ("", "0")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
