# Tries: use all memory
# Earns: 2

# %% toy.linear
hog = []
while True:
    hog.append(bytearray(1 << 28))
