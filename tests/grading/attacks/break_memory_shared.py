# Tries: use all memory, shared with nobody so that limits do not count it
# Earns: 2

# %% toy.linear
import mmap
hog = []
while True:
    m = mmap.mmap(-1, 1 << 28)
    m.write(bytes(1 << 28))
    hog.append(m)
