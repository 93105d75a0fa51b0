"""The embedded default model: `model.safetensors`, its `tokenizer.json`, and in `recipe` how both were made.

See CARD.md.
"""
