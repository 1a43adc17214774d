"""`python llama_server.py OPTIONS`: llama.cpp's HTTP server, in an environment with `xllamacpp`.

Prints its address as a line once it serves, and runs until it is ended. Imports nothing of ours.
"""

from __future__ import annotations

import json
import signal
import sys

import xllamacpp


def main() -> None:
    options = json.loads(sys.argv[1])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options["model"]
    parameters.n_ctx = options["num_kv_tokens"]
    parameters.n_parallel = options["num_sequences"]
    parameters.kv_unified = True
    parameters.cpuparams.n_threads = options["num_threads"]
    parameters.cpuparams_batch.n_threads = options["num_threads"]
    parameters.fit_params = False
    parameters.cache_ram_mib = 0
    parameters.ui = False
    if options["speculation"]:
        kind = xllamacpp.common_speculative_type[options["speculation"]]
        parameters.speculative.types = [kind]
    server = xllamacpp.Server(parameters)
    print(xllamacpp.get_system_info(), flush=True)
    print(f"listening {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
