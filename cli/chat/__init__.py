"""`rwkv chat`: the verb, the running conversation, its commands, and the two ways of showing it, plain and on
a terminal.
"""
