# Tries: hand in a folder called toy.ipynb
# Earns: 0

# %% file
notebook.unlink()
notebook.mkdir()
