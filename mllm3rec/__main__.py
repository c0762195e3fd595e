"""`python -m mllm3rec`."""

from mllm3rec.cli import main

main()
