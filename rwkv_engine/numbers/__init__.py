"""Sizes, tensors, and the byte layouts of numbers; plain numpy."""
