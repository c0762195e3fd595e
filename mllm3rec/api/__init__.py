"""The Python API: evaluate, compile, compare and use programs; re-exported lazily by `mllm3rec`."""
