# Tries: replace the check by the points
# Earns: 2

# %% file
for cell in cells:
    if 'check' in cell['metadata']:
        cell['source'] = '3.0'
    if cell['metadata'].get('exercise') == 'toy.linear':
        cell['source'] = 'Linear = None'
