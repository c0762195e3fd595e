"""CPU milliseconds a text of the sentence encoder, by the order in which it reads a catalogue.

`python benchmarks/encoding.py DATASET [TEXTS] [ENCODER]` prints one JSON line: for texts in the order of the catalogue,
256 at a time, as the embedding store read them before, and for texts sorted by length, as it reads them now. DATASET is
a folder or `demo`; TEXTS is the number of texts, spread over the catalogue (default 1500); ENCODER is the folder of an
ONNX encoder (default MiniLM). Set MLLM3REC_THREADS to fix the number of threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import mllm3rec as m3
from programs.prior.encoders import Vectors
from programs.prior.onnx_encoder import EncoderFiles, MiniLMEncoder, OnnxEncoder
from programs.runtime.environment import cpu_threads

AT_A_TIME = 256
ROUNDS = 3


def main() -> None:
    """Measure and print."""
    dataset, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    encoder = OnnxEncoder(EncoderFiles.of_folder(Path(sys.argv[3]))) if len(sys.argv) > 3 else MiniLMEncoder()
    texts = [item.text for item in m3.load_dataset(dataset).items.values() if item.text]
    texts = texts[:: max(1, len(texts) // count)][:count]
    by_length = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    orders = {"catalogue": range(len(texts)), "by length": by_length}
    encoder.encode(texts[:AT_A_TIME])  # The first call allocates memory.
    best: dict[str, float] = {}
    vectors: dict[str, Vectors] = {}
    # In turn, because the machine may be busier at one time than at another.
    for _ in range(ROUNDS):
        for name, order in orders.items():
            before = time.process_time()
            vectors[name] = encode(encoder, texts, order)
            best[name] = min(best.get(name, float("inf")), 1000 * (time.process_time() - before) / len(texts))
    difference = float(np.abs(vectors["catalogue"] - vectors["by length"]).max())
    cpu = {f"CPU ms a text, {name}": round(value, 2) for name, value in best.items()}
    facts = {"encoder": encoder.name, "texts": len(texts), "threads": cpu_threads()}
    print(json.dumps({**facts, **cpu, "largest difference of a value": difference}))


def encode(encoder: OnnxEncoder, texts: Sequence[str], order: Iterable[int]) -> Vectors:
    """The vectors of all texts, read in this order, `AT_A_TIME` at a time."""
    rows = list(order)
    parts = [encoder.encode([texts[i] for i in rows[at : at + AT_A_TIME]]) for at in range(0, len(rows), AT_A_TIME)]
    vectors = np.concatenate(parts)
    ordered = np.empty_like(vectors)
    ordered[rows] = vectors
    return ordered


if __name__ == "__main__":
    main()
