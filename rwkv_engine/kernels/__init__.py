"""Compiled code, and nothing else: numba functions over arrays, no Python objects, no allocation."""
