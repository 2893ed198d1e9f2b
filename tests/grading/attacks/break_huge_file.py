# Tries: exhaust the grader with a file of 40 GB
# Earns: 0

# %% file
import os
os.truncate(notebook, 40 << 30)
