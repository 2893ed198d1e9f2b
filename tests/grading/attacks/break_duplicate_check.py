# Tries: stop the run with a check cell that is there twice
# Earns: 5

# %% file
cells.extend([c for c in cells if 'check' in c['metadata']])
