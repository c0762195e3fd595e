"""Single flight: of equal questions asked at the same time, by threads or processes, one is sent; the others wait.

Processes that share a store of answers share a lock file beside it. A question locks the byte whose offset is the hash
of its key (POSIX record lock): the file stays empty, and the kernel releases the lock when its holder dies in any way.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary, finalize

try:
    import fcntl
except ImportError:  # Windows: one flight per process, there.
    fcntl = None  # type: ignore[assignment]

POLL = 0.02
"""Seconds between two looks at a question that somebody else is asking."""

_HEX_DIGITS = 15
"""Of a key: 60 bits, because offsets have 63."""


class SingleFlight:
    """Lets one thread of one process ask a question at a time.

    Args:
        path: The lock file, made when first needed; None for the threads of this process alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path if fcntl is not None else None
        self._file: int | None = None
        # Record locks belong to the process, so its threads need a set of their own.
        self._flying: set[int] = set()
        self._lock = threading.Lock()

    @classmethod
    def beside(cls, cache: Path) -> SingleFlight:
        """The flights of a store: one object per file, as closing a second would release the locks of both."""
        path = cache.absolute().with_name(f"{cache.name}.lock")
        with _REGISTERING:
            return _BY_PATH.setdefault(path, cls(path))

    @contextmanager
    def flight(self, key: str, wait: Callable[[float], None], patience: float) -> Iterator[None]:
        """Hold a question inside the block. Who had to wait finds the answer in the response cache, if there was one.

        Args:
            key: The question's hash, in hexadecimal digits.
            wait: Sleeps so many seconds; raises to end the wait (`Ledger.wait`).
            patience: Seconds to wait for another process, which may hang; after that the question is asked here, too.
        """
        with self.flight_of_all((key,), wait, patience):
            yield

    @contextmanager
    def flight_of_all(self, keys: Iterable[str], wait: Callable[[float], None], patience: float) -> Iterator[None]:
        """`flight` for several questions that are asked together; `patience` is for all of them."""
        give_up = time.monotonic() + patience
        with ExitStack() as held:
            # In one order, so that no two who share questions wait for each other.
            for key in sorted({key[:_HEX_DIGITS] for key in keys}):
                while not self.take(key, time.monotonic() >= give_up):
                    wait(POLL)
                held.callback(self.let_go, key)
            yield

    def take(self, key: str, impatient: bool = False) -> bool:
        """Whether the question is the caller's now, who has to `let_go` of it; False while somebody else asks it.

        Args:
            impatient: Whether to ask although another process does.
        """
        offset = int(key[:_HEX_DIGITS], 16)
        with self._lock:
            if offset in self._flying or not (self._locked(offset) or impatient):
                return False
            self._flying.add(offset)
            return True

    def let_go(self, key: str) -> None:
        """The question has been asked, with or without success."""
        offset = int(key[:_HEX_DIGITS], 16)
        with self._lock:
            self._flying.discard(offset)
            self._unlock(offset)

    def _locked(self, offset: int) -> bool:
        """Lock a byte; whether no other process has it. A file system without locks is no reason not to ask."""
        if self._path is None:
            return True
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                finalize(self, os.close, self._file)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN) or self._file is None
        return True

    def _unlock(self, offset: int) -> None:
        if self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, offset)


_BY_PATH: WeakValueDictionary[Path, SingleFlight] = WeakValueDictionary()
_REGISTERING = threading.Lock()
