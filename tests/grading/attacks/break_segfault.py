# Tries: crash the interpreter
# Earns: 2

# %% toy.linear
import ctypes
ctypes.string_at(0)
