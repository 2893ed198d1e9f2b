# Tries: add a graded cell of one's own
# Earns: 5

# %% file
cells.append({'cell_type': 'code', 'id': 'mine', 'source': '100.0', 'outputs': [], 'execution_count': None, 'metadata': {'nbgrader': {'grade': True, 'solution': False, 'locked': False, 'task': False, 'points': 100, 'grade_id': 'mine', 'schema_version': 3}}})
