"""Compiled code only: numba functions over arrays, without Python objects or allocation."""
