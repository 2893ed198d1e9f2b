# Tries: take what stood there under the solution's name before
# Earns: 2

# %% toy.linear
Linear = Config

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
