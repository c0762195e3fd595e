"""CPU seconds of importing the package and of `mllm3rec --help`, each in processes of their own.

`python benchmarks/start.py [RUNS]` prints one JSON line with the median over RUNS (default 5).
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import mllm3rec": [sys.executable, "-c", "import mllm3rec"],
    "mllm3rec --help": [sys.executable, "-m", "mllm3rec", "--help"],
    "first use of the API": [sys.executable, "-c", "import mllm3rec; mllm3rec.evaluate"],
}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - our own commands
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(
        json.dumps(
            {
                name: round(statistics.median(cpu_seconds(command) for _ in range(runs)), 3)
                for name, command in COMMANDS.items()
            }
        )
    )


if __name__ == "__main__":
    main()
