# Tries: crash the grader's parser with a deep file
# Earns: 0

# %% file
notebook.write_text('[' * 1_000_000)
