# Tries: use all memory
# Earns: 2

# %% toy.linear
hog = []
while True:
    hog.append(bytearray(1 << 28))

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
