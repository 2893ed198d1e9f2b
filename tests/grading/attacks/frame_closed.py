# Tries: close the grader's channel
# Earns: 2

# %% toy.linear
import os
os.close(3)
