"""`python -m engine.prepare MODEL`: makes a model ready to load and prints its folder."""

from __future__ import annotations

import argparse
import sys

from engine.errors import ModelRefusedError
from engine.model_files import converted_dir, gguf_of, resolve_model


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.prepare", description=__doc__)
    parser.add_argument("model", help="smollm2-135m-instruct, a .gguf file, a folder or a Hub id")
    name = parser.parse_args().model
    try:
        gguf = gguf_of(name)
        if gguf is not None and not converted_dir(gguf).exists():
            print(f"converting {gguf.name} (once)", file=sys.stderr)
            from engine.gguf import convert_gguf  # torch takes seconds to load

            convert_gguf(gguf, converted_dir(gguf))
        print(resolve_model(name))
    except ModelRefusedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
