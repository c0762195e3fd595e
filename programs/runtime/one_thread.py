"""One thread of torch for a while, because sums depend on the number of threads; torch is imported on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch inside the block, or inside the decorated function; afterwards as many as before.

    It is for the calling thread alone, and says nothing about the threads of numpy's libraries.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
