"""Sizes, tensors, and the byte layouts of numbers, in plain NumPy."""
