# Tries: hand in a link to itself
# Earns: 0

# %% file
notebook.unlink()
notebook.symlink_to(notebook.name)
