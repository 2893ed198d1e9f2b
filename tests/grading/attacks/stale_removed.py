# Tries: after full marks, hand in an empty folder
# Earns: 0
# Earlier: right

# %% file
notebook.unlink()
