"""Fine-tuned language models: what of a local model is trained, and how it scores candidates (extra `finetune`)."""
