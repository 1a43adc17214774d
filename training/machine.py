"""What a command of `training/` computes on: the options `--device` and `--num-threads`."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import torch

_FORM = re.compile(r"cpu|cuda(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Machine:
    """`device` is "cpu", "cuda" or "cuda:N"; `num_threads` of None leaves torch's own number."""

    device: str = "cpu"
    num_threads: int | None = None

    @staticmethod
    def of(given: argparse.Namespace) -> Machine:
        """From the options of `add_machine`; sets the number of threads of this process."""
        if given.num_threads is not None:
            torch.set_num_threads(given.num_threads)
        return Machine(given.device, given.num_threads)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--device",
        type=device,
        default=usual_device(),
        help="cpu, cuda or cuda:N; default: cuda if there is one, here %(default)s",
    )
    parser.add_argument("--num-threads", type=_num_threads, help="of the processor; default: all")


def usual_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device(name: str) -> str:
    """`name` itself; raises ArgumentTypeError for what is no device, or not one of this machine."""
    found = _FORM.fullmatch(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"{name!r} is none of cpu, cuda and cuda:N")
    if name == "cpu":
        return name
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(found[1] or 0) >= count:
        reason = f"torch {torch.__version__} finds {count} CUDA devices on this machine"
        raise argparse.ArgumentTypeError(f"{name!r} is not there: {reason}")
    return name


def _num_threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads")
    return int(text)
