"""Two threads of torch, whatever the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def two_threads() -> Iterator[None]:
    """Torch has two threads inside the block, so that code which leaves it with one is found."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
