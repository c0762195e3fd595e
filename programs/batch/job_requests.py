"""HTTP requests about jobs, for interfaces that are a few requests: bounded answers, no redirects, no key in errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx

from programs.batch.provider import provider_error, whole_lines
from programs.lm.keys import no_key_in_errors, without_key
from programs.lm.transport import is_this_machine
from programs.runtime.errors import InputError, one_line

MOST_BYTES_OF_BODY = 512 << 20
"""Of one answer about jobs; Google's holds all answers of a job."""

_TIMEOUT = 600.0


@contextmanager
def plain_job_errors(address: str, key: str) -> Iterator[None]:
    """Errors inside the block as those of requests about jobs, also where an answer is not what its reader expects.

    Args:
        address: For messages.
        key: Of the provider; it is taken out of errors.

    Raises:
        ConnectionError: for what may pass: the network, and answers that are cut off or cannot be read.
        InputError: as it was raised inside the block.
    """
    with no_key_in_errors(key):
        try:
            yield
        except InputError:
            raise
        except httpx.HTTPError as error:
            raise ConnectionError(f"{address}: {one_line(error)}") from None
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            # After a request to create a batch: it may have been created, so this is no refusal.
            raise ConnectionError(f"{address}: the answer cannot be read ({one_line(error)})") from None


class JobRequests:
    """Requests to the batch interface of one account.

    Args:
        address: Base URL of the interface, for messages.
        headers: Of every request, with the key.
        key: Of the provider; it is taken out of answers and errors.
        variable: Environment variable with the key, for messages.
    """

    def __init__(self, address: str, headers: Mapping[str, str], key: str | None, variable: str) -> None:
        self._address, self._key, self._variable = address, key or "", variable
        self._http = httpx.Client(
            headers=dict(headers), timeout=_TIMEOUT, follow_redirects=False, trust_env=not is_this_machine(address)
        )

    def ask(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        """The JSON object that answers a request.

        Args:
            request: Further arguments of `httpx.Client.stream`.

        Raises:
            ConnectionError: for what may pass.
            InputError: if the provider refuses the request, or its answer is too large.
        """
        with self.plain_errors():
            request["headers"] = {"content-type": "application/json"}
            with self._http.stream(method, url, **request) as response:
                text = self._text(response)
            # One odd number among the answers of a job is no reason to lose the others.
            return dict(json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else math.inf))

    def lines(self, url: str) -> Iterator[bytes]:
        """The lines of a file; raises as `ask` does."""
        with self.plain_errors(), self._http.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                self._text(response)
            yield from whole_lines(response.iter_bytes(), url, self._key)

    def plain_errors(self) -> AbstractContextManager[None]:
        """See `plain_job_errors`: for a block that reads what `ask` has answered."""
        return plain_job_errors(self._address, self._key)

    def _text(self, response: httpx.Response) -> str:
        """The body of an answer, without the key; raises if it is an error, or too large."""
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MOST_BYTES_OF_BODY:
                raise InputError(
                    f"{self._address}: an answer about a batch is larger than {MOST_BYTES_OF_BODY >> 20} MB, as no "
                    "provider's is: correct the address"
                )
        # Before a message is cut, which may leave half a key.
        text = without_key(body.decode("utf-8", "replace"), self._key)
        if response.status_code != httpx.codes.OK:
            raise provider_error(response.status_code, text, self._address, self._variable)
        return text
