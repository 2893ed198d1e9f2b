# Tries: have the instructor's secret copied to where feedback is made
# Earns: 5

# %% file
(folder / 'notes.txt').symlink_to(root / 'secret.txt')
