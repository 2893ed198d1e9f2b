# Tries: stop the run with a cell that the gradebook does not know
# Earns: 5

# %% file
cells.append({'cell_type': 'code', 'metadata': {'nbgrader': {'grade_id': 'unknown', 'grade': True, 'solution': False, 'locked': True, 'points': 1, 'schema_version': 3}}, 'source': '1', 'outputs': [], 'execution_count': None})
