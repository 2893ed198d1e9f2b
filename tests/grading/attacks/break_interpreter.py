# Tries: leave the interpreter in ruins
# Earns: 0

# %% toy.linear
import builtins, sys
for name in list(vars(builtins)):
    if name not in ('BaseException',):
        delattr(builtins, name)
