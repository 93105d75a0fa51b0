"""Smaller models made of larger ones: pruning and distilling."""
