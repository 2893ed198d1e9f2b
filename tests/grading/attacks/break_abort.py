# Tries: abort the interpreter
# Earns: 2

# %% toy.linear
import os
os.abort()
