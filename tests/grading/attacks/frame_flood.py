# Tries: write to the grader's channel without end
# Earns: 2

# %% toy.linear
import os
block = bytes(1 << 16)
while True:
    os.write(3, block)
