"""Local web page over runs, studies, comparisons and compiles (`mllm3rec view`)."""
