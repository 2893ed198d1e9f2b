# Tries: start processes without end
# Earns: 2

# %% toy.linear
import os
while True:
    os.fork()
