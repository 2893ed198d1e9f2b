# Tries: crash the interpreter
# Earns: 2

# %% toy.linear
import ctypes
ctypes.string_at(0)

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
