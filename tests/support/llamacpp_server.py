"""The server of llama.cpp, with the model of a file, until standard input ends.

A program, run by the Python that `make llamacpp` installs xllamacpp for; it imports nothing of
ours. It prints where the server is, once that answers.
"""

import sys

import xllamacpp  # type: ignore[import-not-found]  # not where the tests run


def main(model: str, key: str, slots: str, context: str) -> None:
    """Serve; stop when whoever started this is gone, however that came."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_parallel = int(slots)
    params.n_ctx = int(slots) * int(context)
    # It thinks only if it is asked to. The format matters, too: with one, every grammar begins
    # with thoughts that may be left out.
    params.enable_reasoning = 0
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.endpoint_slots = True
    params.warmup = False
    # The default is one thread for each core: more than such a model can use.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
