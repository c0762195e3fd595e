"""Ten prompts asked twice, in different orders, of the engine in this process: equal answers, and CPU time.

    MLLM3REC_THREADS=1 python benchmarks/determinism.py

Needs `mllm3rec models fetch smollm2-135m`. Nothing is cached.
"""

from __future__ import annotations

import json
import random
import time
from urllib.request import Request, urlopen

from evaluate.data.demo.store import demo_dataset
from programs.lm.llama_cpp import LocalEngine
from programs.runtime.weights import locate

SYSTEM = (
    "You are a careful assistant of a store. Describe what a product is good for in short phrases of two to five "
    "words, one per line. "
) * 8


def ask(url: str, key: str, prompt: str) -> tuple[str, str]:
    """The answer's text and its log-probabilities."""
    body = {
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
        "max_tokens": 40,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 3,
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urlopen(Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)) as answer:  # noqa: S310
        choice = json.load(answer)["choices"][0]
    return choice["message"]["content"], json.dumps(choice["logprobs"]["content"])


def main() -> None:
    """Print a line for either mode of the engine."""
    files = locate("smollm2-135m")
    if files is None:
        raise SystemExit("run `mllm3rec models fetch smollm2-135m` first")
    titles = [item.title for item in demo_dataset().items.values()]
    prompts = ["Bought: " + ", ".join(titles[: 3 * n + 1]) + ". Name what this person wants." for n in range(10)]
    engine = LocalEngine()
    for deterministic in (False, True):
        url, key = engine.serve(next(iter(files.values())), deterministic=deterministic)
        begun = time.process_time()
        first = {prompt: ask(url, key, prompt) for prompt in prompts}
        second = {prompt: ask(url, key, prompt) for prompt in random.Random(5).sample(prompts, 10)}  # noqa: S311 - an order, no secret
        seconds = time.process_time() - begun
        texts = sum(first[prompt][0] == second[prompt][0] for prompt in prompts)
        numbers = sum(first[prompt] == second[prompt] for prompt in prompts)
        mode = "deterministic" if deterministic else "fast"
        print(f"{mode}: {texts} of 10 texts equal, {numbers} with equal log-probabilities, {seconds:.1f} CPU-s")


if __name__ == "__main__":
    main()
