"""`python -m engine.prepare MODEL`: makes a model ready to load and prints its folder."""

from __future__ import annotations

import argparse
import signal
import sys

from engine.errors import ModelRefusedError
from engine.model_files import converted_dir, gguf_of, is_converted, resolve_model

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.prepare", description=__doc__)
    parser.add_argument("model", help="smollm2-135m-instruct, a .gguf file, a folder or a Hub id")
    name = parser.parse_args().model
    for number in _SIGNALS:
        signal.signal(number, _stop)
    try:
        gguf = gguf_of(name)
        if gguf is not None and not is_converted(converted_dir(gguf)):
            print(f"converting {gguf.name} (once)", file=sys.stderr)
            from engine.gguf import convert_gguf  # torch takes seconds to load

            convert_gguf(gguf, converted_dir(gguf))
        print(resolve_model(name))
    except ModelRefusedError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def _ignore(number: int, frame: object) -> None:
    """Unlike SIG_IGN also for a signal that is on its way."""


def _stop(number: int, frame: object) -> None:
    """Ends by an exception, so that nothing half-made is left; further signals change nothing."""
    for each in _SIGNALS:
        signal.signal(each, _ignore)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
