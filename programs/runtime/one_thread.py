"""One thread of torch for a while, because sums depend on the number of threads; torch is imported on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch inside the block, or inside the decorated function; afterwards as many as before.

    Other threads that use torch for the first time meanwhile may keep one thread for good, so that what has to be the
    same with any number of workers is always computed with it. The threads of numpy's libraries are not concerned.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
