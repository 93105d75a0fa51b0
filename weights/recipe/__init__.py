"""How the embedded model was made: a corpus from a grammar, a vocabulary, training, export, evaluation.

`make` runs all of it.
"""
