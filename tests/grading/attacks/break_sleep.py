# Tries: sleep for an hour
# Earns: 2

# %% toy.linear
import time
time.sleep(3600)

# %% toy.relu
def relu(x):
    return x.clamp(min=0)
