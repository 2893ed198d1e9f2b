# Tries: abort the interpreter
# Earns: 2

# %% toy.linear
import os
os.abort()

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
