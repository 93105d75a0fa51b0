"""Tools that make one file from another: quantizing, state files."""
