"""What runs a forward pass: threads, work arrays, the embedding in its file, compiling."""
