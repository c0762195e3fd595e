"""An OpenAI-compatible server for a small model on CPUs with bfloat16: many calls at a time, on loopback.

    python benchmarks/batching_server.py MODEL PORT [SLOTS]

MODEL is a GGUF file or a Hugging Face folder of Llama's or Qwen2's form. It needs the extra `finetune`, and
`pip install llguidance`. The decoder is written out here, because that of transformers packs no weights, and copies all
keys for each token. Tokens of all calls are computed together, keys and values of common prefixes are
kept, and an answer follows the JSON schema of its call. Like every server that batches, it gives answers that depend a
little on what is asked at the same time. `/stats` says how many tokens it read and wrote. For docs/results.md.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import queue
import sys
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from aiohttp import web
from llguidance import LLMatcher
from torch import Tensor

from programs.tuned.backbone import load_backbone

CONTEXT = 3072
"""Most tokens of a prompt and its answer."""

KEPT_TOKENS = 120_000
"""Of prompts whose keys and values are kept for later prompts that begin alike; 12 KiB each for a model of 0.5B."""


class Decoder:
    """A decoder of Llama's form with packed weights, for one prompt or for one token of each of several calls."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.layers_n, self.heads, self.kv_heads = (
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
        )
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.epsilon, self.vocabulary = config.rms_norm_eps, config.vocab_size
        rates = config.rope_parameters["rope_theta"] ** -(torch.arange(0, self.width, 2) / self.width)
        angles = torch.arange(CONTEXT)[:, None] * rates
        self.cos, self.sin = (part.repeat(1, 2) for part in (angles.cos(), angles.sin()))
        self.embedding = model.model.embed_tokens.weight
        self.layers = [_Layer.of(layer) for layer in model.model.layers]
        self.norm, self.head = model.model.norm.weight, _packed(model.lm_head.weight)

    def room(self, slots: int) -> Tensor:
        """Keys, or values, of each slot: shape (layers, slots, heads, tokens, width)."""
        return torch.zeros(self.layers_n, slots, self.kv_heads, CONTEXT, self.width, dtype=torch.bfloat16)

    def read(self, tokens: list[int], keys: Tensor, values: Tensor, known: int) -> Tensor:
        """Logits after a prompt, shape (v,).

        Args:
            keys, values: Of one slot, shape (layers, heads, tokens, width); filled from `known` on.
            known: How many tokens' keys and values are there.
        """
        end = len(tokens)
        positions = torch.arange(known, end)
        visible = torch.arange(end)[None, :] <= positions[:, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys[layer, :, known:end], values[layer, :, known:end] = key.transpose(0, 1), value.transpose(0, 1)
            found = F.scaled_dot_product_attention(
                query.transpose(0, 1)[None],
                keys[layer, None, :, :end],
                values[layer, None, :, :end],
                attn_mask=visible,
                enable_gqa=True,
            )
            return found[0].transpose(0, 1).reshape(end - known, -1)

        return self._logits(self._states(torch.tensor(tokens[known:]), positions, attend)[-1:])[0]

    def step(self, tokens: list[int], at: list[int], keys: Tensor, values: Tensor) -> Tensor:
        """Logits after one token of each of the first `len(tokens)` slots, at the positions `at`; shape (n, v)."""
        n, most, positions = len(tokens), max(at) + 1, torch.tensor(at)
        visible = (torch.arange(most)[None, :] <= positions[:, None])[:, None, None]
        rows = torch.arange(n)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys[layer, rows, :, positions], values[layer, rows, :, positions] = key, value
            # Heads that share keys stand in the place of query tokens, so that these are read once and not copied.
            found = F.scaled_dot_product_attention(
                query.view(n, self.kv_heads, self.heads // self.kv_heads, self.width),
                keys[layer, :n, :, :most],
                values[layer, :n, :, :most],
                attn_mask=visible,
            )
            return found.reshape(n, -1)

        return self._logits(self._states(torch.tensor(tokens), positions, attend))

    def _states(self, tokens: Tensor, positions: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        states = self.embedding[tokens]
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        turned, first = self.heads + self.kv_heads, self.width // 2
        for number, layer in enumerate(self.layers):
            joined = _linear(self._normed(states, layer.norm), layer.attention, layer.bias)
            heads = joined.view(len(tokens), turned + self.kv_heads, self.width)
            plain = heads[:, :turned].float()
            half = torch.cat([-plain[..., first:], plain[..., :first]], -1)
            rotated = (plain * cos + half * sin).to(torch.bfloat16)
            found = attend(number, rotated[:, : self.heads], rotated[:, self.heads :], heads[:, turned:])
            states = states + _linear(found, layer.output)
            gate, up = _linear(self._normed(states, layer.second_norm), layer.gate_up).chunk(2, -1)
            states = states + _linear(F.silu(gate) * up, layer.down)
        return states

    def _logits(self, states: Tensor) -> Tensor:
        return _linear(self._normed(states, self.norm), self.head).float()

    def _normed(self, states: Tensor, weight: Tensor) -> Tensor:
        exact = states.float()
        scale = torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (exact * scale).to(torch.bfloat16) * weight


@dataclass
class _Layer:
    norm: Tensor
    attention: Tensor
    bias: Tensor | None
    output: Tensor
    second_norm: Tensor
    gate_up: Tensor
    down: Tensor

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        return cls(
            layer.input_layernorm.weight,
            _packed(torch.cat([part.weight for part in parts])),
            None if parts[0].bias is None else torch.cat([part.bias for part in parts]),
            _packed(attention.o_proj.weight),
            layer.post_attention_layernorm.weight,
            _packed(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])),
            _packed(mlp.down_proj.weight),
        )


def _packed(weight: Tensor) -> Tensor:
    """A matrix in oneDNN's own order, which doubles its speed for few rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 16)


def _linear(rows: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")


class Prefixes:
    """Keys and values of earlier prompts; of each new one, what it has in common with one of them is not read again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], tuple[Any, Tensor, Tensor]] = OrderedDict()
        self._tokens = 0

    def fill(self, prompt: list[int], keys: Tensor, values: Tensor) -> int:
        """Copy the longest common prefix into a slot; its length in tokens, less than the prompt's."""
        ids, name, length = np.array(prompt), None, 0
        for other, (known, _, _) in self._kept.items():
            n = min(len(known), len(ids) - 1)
            same = known[:n] == ids[:n]
            if (n if same.all() else int(same.argmin())) > length:
                name, length = other, n if same.all() else int(same.argmin())
        if name is not None:
            self._kept.move_to_end(name)
            _, kept_keys, kept_values = self._kept[name]
            keys[:, :, :length], values[:, :, :length] = kept_keys[:, :, :length], kept_values[:, :, :length]
        return length

    def keep(self, prompt: list[int], keys: Tensor, values: Tensor) -> None:
        """Keep a prompt that was read, and forget the ones that were not used for longest."""
        n, name = len(prompt), tuple(prompt)
        if name not in self._kept:
            self._tokens += n
        self._kept[name] = np.array(prompt), keys[:, :, :n].clone(), values[:, :, :n].clone()
        while self._tokens > KEPT_TOKENS and len(self._kept) > 1:
            self._tokens -= len(self._kept.popitem(last=False)[0])


class Writer:
    """Chooses the tokens of one answer.

    Attributes:
        prompt, tokens: Token ids.
        end: Why the answer ended, or None.
        tops: The likeliest tokens at each position, where the call asks for them.
    """

    def __init__(self, body: dict[str, Any], tokenizer: Any, guide: Any) -> None:
        text = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        self.prompt: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        self.tokens: list[int] = []
        self.tops: list[dict[str, Any]] = []
        self.end: str | None = None
        self._tokenizer = tokenizer
        wanted = body.get("max_tokens") or body.get("max_completion_tokens") or 1024
        self._most = min(wanted, CONTEXT - len(self.prompt) - 1)
        if self._most < 1:
            raise ValueError(f"the prompt has {len(self.prompt)} tokens; {CONTEXT} is the most, with the answer")
        self._top: int | None = (body.get("top_logprobs") or 0) if body.get("logprobs") else None
        self._temperature, self._top_p = body.get("temperature") or 0.0, body.get("top_p") or 1.0
        self._random = torch.Generator().manual_seed(zlib.crc32(text.encode()) ^ (body.get("seed") or 0))
        self._matcher = _matcher(body.get("response_format") or {}, guide)

    def write(self, logits: Tensor) -> None:
        """Add the next token."""
        token = self._pick(logits)
        stops = token == self._tokenizer.eos_token_id
        if self._matcher is not None and (stops or self._matcher.validate_tokens([token]) != 1):
            mask = llguidance.numpy.allocate_token_bitmask(1, len(logits))
            llguidance.numpy.fill_next_token_bitmask(self._matcher, mask)
            allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(logits)].astype(bool)
            token = self._pick(logits.masked_fill(~torch.from_numpy(allowed), -math.inf))
            stops = token == self._tokenizer.eos_token_id
        if stops:
            self.end = "stop"
            return
        self.tokens.append(token)
        if self._top is not None:
            self.tops.append(self._listed(token, torch.log_softmax(logits, -1)))
        if self._matcher is not None:
            self._matcher.consume_token(token)
        if self._matcher is not None and self._matcher.is_stopped():
            self.end = "stop"
        elif len(self.tokens) >= self._most:
            self.end = "length"

    def _pick(self, logits: Tensor) -> int:
        if not self._temperature:
            return int(logits.argmax())
        shares, order = torch.softmax(logits / self._temperature, -1).topk(200)
        shares = shares.masked_fill(shares.cumsum(-1) - shares > self._top_p, 0.0)
        return int(order[torch.multinomial(shares, 1, generator=self._random)])

    def _listed(self, token: int, logprobs: Tensor) -> dict[str, Any]:
        values, ids = logprobs.topk(self._top or 0)
        tops = [
            {"token": self._tokenizer.decode([int(other)]), "logprob": float(value)}
            for value, other in zip(values, ids, strict=True)
        ]
        return {"token": self._tokenizer.decode([token]), "logprob": float(logprobs[token]), "top_logprobs": tops}


def _matcher(form: dict[str, Any], guide: Any) -> LLMatcher | None:
    if form.get("type") != "json_schema":
        return None
    spaces = {"whitespace_flexible": True, "whitespace_pattern": " ?"}
    schema = {**form["json_schema"]["schema"], "x-guidance": spaces}
    matcher = LLMatcher(guide, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return matcher


@dataclass
class Batch:
    """The calls that are answered together, in a thread of its own."""

    decoder: Decoder
    slots: int
    waiting: queue.Queue[tuple[Writer, Callable[[Exception | None], None]]] = field(default_factory=queue.Queue)
    counts: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("calls", "prompt", "read", "read_s", "written", "written_s"), 0)
    )

    def run(self) -> None:
        """Answer calls until the process ends."""
        keys, values = self.decoder.room(self.slots), self.decoder.room(self.slots)
        prefixes = Prefixes()
        active: list[tuple[Writer, Callable[[Exception | None], None]]] = []
        while True:
            while len(active) < self.slots and (not active or not self.waiting.empty()):
                writer, done = self.waiting.get()
                error = self._begin(writer, keys[:, len(active)], values[:, len(active)], prefixes)
                if error is not None or writer.end is not None:
                    done(error)
                else:
                    active.append((writer, done))
            start = time.perf_counter()
            last = [writer.tokens[-1] for writer, _ in active]
            at = [len(writer.prompt) + len(writer.tokens) - 1 for writer, _ in active]
            try:
                stepped = self.decoder.step(last, at, keys, values)
            except Exception as error:
                while active:
                    active.pop()[1](error)
                continue
            errors = [_written(writer, logits) for (writer, _), logits in zip(active, stepped, strict=True)]
            self.counts["written"] += len(active)
            self.counts["written_s"] += time.perf_counter() - start
            for slot in reversed(range(len(active))):
                if errors[slot] is not None or active[slot][0].end is not None:
                    active[slot][1](errors[slot])
                    moved = active.pop()
                    if slot < len(active):
                        active[slot] = moved
                        keys[:, slot], values[:, slot] = keys[:, len(active)].clone(), values[:, len(active)].clone()

    def _begin(self, writer: Writer, keys: Tensor, values: Tensor, prefixes: Prefixes) -> Exception | None:
        start, prompt = time.perf_counter(), writer.prompt
        try:
            known = prefixes.fill(prompt, keys, values)
            logits = self.decoder.read(prompt, keys, values, known)
            prefixes.keep(prompt, keys, values)
        except Exception as error:
            return error
        if (error := _written(writer, logits)) is not None:
            return error
        for name, count in {"calls": 1, "prompt": len(prompt), "read": len(prompt) - known, "written": 1}.items():
            self.counts[name] += count
        self.counts["read_s"] += time.perf_counter() - start
        return None


def _written(writer: Writer, logits: Tensor) -> Exception | None:
    """Add the next token of a call; what went wrong with its schema is that call's own."""
    try:
        writer.write(logits)
    except Exception as error:
        return error
    return None


def require_equal(model: Any, decoder: Decoder) -> None:
    """End the process if transformers computes other logits: the model has parts that the decoder does not know.

    300 tokens show other rotary positions; rounding to bfloat16 alone gives relative errors of about .05.
    """
    tokens = torch.randint(decoder.vocabulary, (300,), generator=torch.Generator().manual_seed(0))
    keys, values = decoder.room(1)[:, 0], decoder.room(1)[:, 0]
    found = decoder.read(tokens.tolist(), keys, values, 0)
    wanted = model(tokens[None]).logits[0, -1].float()
    error = float((found - wanted).norm() / wanted.norm())
    if error > 0.2:
        sys.exit(f"this decoder computes other logits than transformers (relative error {error:.2f}): another form")


def application(batch: Batch, tokenizer: Any, guide: Any) -> web.Application:
    """The routes."""

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Exception | None] = loop.create_future()

        def done(error: Exception | None) -> None:
            loop.call_soon_threadsafe(lambda: None if answered.done() else answered.set_result(error))

        try:
            writer = Writer(body, tokenizer, guide)
        except ValueError as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        batch.waiting.put((writer, done))
        if (error := await answered) is not None:
            return web.json_response({"error": {"message": repr(error)}}, status=500)
        message = {"role": "assistant", "content": tokenizer.decode(writer.tokens)}
        choice: dict[str, Any] = {"index": 0, "finish_reason": writer.end, "message": message}
        if writer.tops:
            choice["logprobs"] = {"content": writer.tops}
        usage = {"prompt_tokens": len(writer.prompt), "completion_tokens": len(writer.tokens)}
        whole = {"id": "x", "object": "chat.completion", "created": int(time.time()), "model": body.get("model")}
        return web.json_response({**whole, "choices": [choice], "usage": usage})

    async def stats(_: web.Request) -> web.Response:
        return web.json_response({name: round(count, 1) for name, count in batch.counts.items()})

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/stats", stats)
    return app


def main() -> None:
    """Serve a model until the process ends."""
    name, port, *slots = sys.argv[1:]
    torch.set_grad_enabled(False)
    torch.set_num_threads(int(os.environ.get("MLLM3REC_THREADS", "1")))
    base = load_backbone(name, torch.bfloat16)
    tokenizer, decoder = base.tokenizer, Decoder(base.model)
    require_equal(base.model, decoder)
    del base  # its weights are packed now
    guide = llguidance.hf.from_tokenizer(tokenizer, n_vocab=decoder.vocabulary)
    batch = Batch(decoder, int(slots[0]) if slots else 16)
    threading.Thread(target=batch.run, daemon=True).start()
    web.run_app(application(batch, tokenizer, guide), host="127.0.0.1", port=int(port), access_log=None)


if __name__ == "__main__":
    main()
