"""How good a model is on a user's text and tasks, beside what it costs: `evaluate`, its report, and the
lm-evaluation-harness.
"""
