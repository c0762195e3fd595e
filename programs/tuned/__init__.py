"""Fine-tuned reader: a local language model with LoRA adapters that scores a user's candidates (extra `finetune`)."""
