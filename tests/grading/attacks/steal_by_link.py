# Tries: hand in a link to the instructor's notebook
# Earns: 0

# %% file
notebook.unlink()
notebook.symlink_to(root / 'solutions' / '00-toy' / 'toy.ipynb')
