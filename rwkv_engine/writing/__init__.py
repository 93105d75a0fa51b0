"""What writes text: generation, sampling, constraints, the prefix cache."""
