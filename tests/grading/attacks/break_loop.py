# Tries: never end
# Earns: 2

# %% toy.linear
while True:
    pass

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
