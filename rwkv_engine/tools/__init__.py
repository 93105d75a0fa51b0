"""What turns one file into another: quantizing, state files."""
