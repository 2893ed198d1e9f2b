# Tries: hand in a right and a wrong solution under one name: the last counts
# Earns: 2

# %% file
cells.append(dict(next(c for c in cells if c['metadata'].get('exercise') == 'toy.linear'), source='Linear = None'))
