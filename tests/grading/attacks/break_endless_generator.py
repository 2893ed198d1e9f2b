# Tries: give numbers without end
# Earns: 3

# %% toy.relu
def relu(x):
    while True:
        yield 0.0
