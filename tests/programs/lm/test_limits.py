"""Limits of a backend as a user states them."""

from __future__ import annotations

from pathlib import Path

import dspy
import pytest

from programs.lm.backends import Backends
from programs.lm.ledger import Call, Ledger, read_calls
from programs.lm.limits import DEFAULT_CONCURRENCY, Limits, limits_for, stated_limits
from programs.lm.llama_cpp import ENGINE
from programs.lm.roles import RoleConfig, Roles, local_roles
from programs.runtime.errors import InputError


class TestStated:
    def test_every_backend_has_a_concurrency(self) -> None:
        stated = {"openai/gpt-4o": Limits(rpm=500), "http://h/v1#m": Limits(concurrency=2)}
        found = {m: limits_for(RoleConfig(model=m), stated) for m in ("openai/gpt-4o", "http://h/v1#m", "local/x")}
        assert found["openai/gpt-4o"] == Limits(concurrency=DEFAULT_CONCURRENCY, rpm=500)
        assert found["http://h/v1#m"] == Limits(concurrency=2)
        assert found["local/x"] == Limits(concurrency=ENGINE.slots)

    def test_those_of_a_model_hold_for_a_dspy_object_of_its_name(self) -> None:
        stated = {"openai/gpt-4o": Limits(rpm=500, concurrency=2), "openai/o": Limits(rpm=1), "dspy:openai/o": Limits()}
        config = RoleConfig(model="dspy:openai/gpt-4o")
        assert limits_for(config, stated) == stated["openai/gpt-4o"]
        assert limits_for(RoleConfig(model="dspy:openai/o"), stated).rpm is None
        lm = dspy.LM("openai/gpt-4o", api_key="-")
        backends = Backends(Roles.all_on(config), limits=stated, given={"dspy:openai/gpt-4o": lm})
        assert backends.rate_limiter(config).limits == stated["openai/gpt-4o"]

    def test_they_are_read_from_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "limits.toml"
        path.write_text('["openai/gpt-4o"]\nrpm = 500\ntpm = 30000\n')
        monkeypatch.setenv("MLLM3REC_LIMITS", str(path))
        assert stated_limits() == Backends(local_roles()).limits == {"openai/gpt-4o": Limits(rpm=500, tpm=30000)}
        path.write_text('["openai/gpt-4o"]\nrpm = 0\n')
        with pytest.raises(InputError, match=r"limits.toml: openai/gpt-4o.rpm: .* greater than or equal to 1"):
            stated_limits()

    def test_roles_of_one_model_share_a_rate_limiter_and_so_do_other_mixes(self) -> None:
        roles = local_roles("http://h/v1#m").with_models(mar="http://h/v1#n")
        backends = Backends(roles, limits={})
        one, two, other = (backends.rate_limiter(roles.of(role)) for role in ("mope", "mote", "mar"))
        assert one is two is not other
        mix = backends.with_roles(local_roles("http://h/v1#n"), Ledger())
        assert mix.rate_limiter(mix.roles.mope) is other
        assert mix.ledger is not backends.ledger
        assert backends.with_roles(local_roles("http://h/v1#n")).ledger is backends.ledger

    def test_a_ledger_from_before_waiting_was_recorded_still_loads(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_text('{"role": "mar", "model": "m", "tokens_in": 3, "seconds": 0.5, "at": 1.0}\n')
        assert next(iter(read_calls(path))) == Call(role="mar", model="m", tokens_in=3, seconds=0.5, at=1.0)
