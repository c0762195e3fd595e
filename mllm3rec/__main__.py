"""`python -m mllm3rec`."""

from mllm3rec.cli.main import main

main()
