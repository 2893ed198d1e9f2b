# Tries: take what stood there under the solution's name before
# Earns: 2

# %% toy.linear
Linear = Config
