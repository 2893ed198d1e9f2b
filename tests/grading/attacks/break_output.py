# Tries: print without end
# Earns: 2

# %% toy.linear
while True:
    print('x' * 1_000_000)

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
