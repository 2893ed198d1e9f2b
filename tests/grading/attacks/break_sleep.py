# Tries: sleep for an hour
# Earns: 2

# %% toy.linear
import time
time.sleep(3600)
