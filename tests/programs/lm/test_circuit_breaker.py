"""The circuit breaker: when a backend counts as down, and who finds out that it is back."""

from __future__ import annotations

import pytest
from dspy.utils.exceptions import LMAuthError, LMInvalidRequestError, LMServerError

from programs.lm.circuit_breaker import COOL_DOWN, FAILURES, BackendDownError, CircuitBreaker
from tests.support.failures import refused_connection


class TestCircuit:
    def test_a_few_lost_calls_in_a_row_are_death(self) -> None:
        circuit = CircuitBreaker("it")
        error = LMServerError("on fire", status=500)
        for _ in range(FAILURES - 1):
            circuit.record_failure(error, 0.0)
        circuit.record(None, False, 0.0)
        for _ in range(FAILURES - 1):
            circuit.record_failure(error, 0.0)
            circuit.require(0.0)
        circuit.record_failure(error, 0.0)
        with pytest.raises(BackendDownError, match=r"^it does not answer \(on fire\); the next call is sent in 30 s$"):
            circuit.require(0.0)

    def test_one_is_if_nobody_listens(self) -> None:
        circuit = CircuitBreaker("it")
        circuit.record_failure(refused_connection(), 0.0)
        with pytest.raises(BackendDownError) as error:
            circuit.require(0.0)
        assert not error.value.refused

    def test_a_refusal_is_at_once(self) -> None:
        circuit = CircuitBreaker("it")
        circuit.record(LMAuthError("invalid key"), False, 0.0)
        with pytest.raises(BackendDownError, match="rejected the key, account or model") as error:
            circuit.require(0.0)
        assert error.value.refused

    def test_errors_of_the_call_are_not_the_backend_s(self) -> None:
        circuit = CircuitBreaker("it")
        for _ in range(2 * FAILURES):
            circuit.record_failure(LMInvalidRequestError("too long", status=400), 0.0)
            circuit.record_failure(ValueError("ours"), 0.0)
        circuit.require(0.0)
        assert not circuit.is_open

    def test_after_the_cool_down_one_call_finds_out(self) -> None:
        circuit = CircuitBreaker("it")
        circuit.record_failure(refused_connection(), 0.0)
        circuit.require(COOL_DOWN)
        assert circuit.start()
        with pytest.raises(BackendDownError, match="a probe is under way"):
            circuit.require(COOL_DOWN)
        circuit.record(refused_connection(), True, 31.0)
        with pytest.raises(BackendDownError, match="in 29 s"):
            circuit.require(32.0)
        circuit.require(31.0 + COOL_DOWN)
        assert circuit.start()
        circuit.record(None, True, 62.0)
        circuit.require(62.0)
        assert not circuit.start()
