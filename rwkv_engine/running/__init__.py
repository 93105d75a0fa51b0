"""Runs forward passes: threads, work arrays, embedding rows from the file, compiling."""
