# Tries: stop the run with metadata of the wrong types
# Earns: 5

# %% file
for cell in cells:
    if 'check' in cell['metadata']:
        cell['metadata']['nbgrader'] = ['odd', None, {}]
cells.append({'cell_type': 'code', 'metadata': {'nbgrader': {'grade_id': {'a': 1}, 'grade': 'yes', 'points': 'many'}}, 'source': 7})
cells.append(None)
