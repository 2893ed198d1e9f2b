# Tries: raise the points that a check is worth
# Earns: 5

# %% file
for cell in cells:
    if 'check' in cell['metadata']:
        cell['metadata']['nbgrader']['points'] = 500
