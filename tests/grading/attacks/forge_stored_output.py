# Tries: submit with the outputs that full marks would have
# Earns: 0

# %% file
for cell in cells:
    if 'check' in cell['metadata']:
        cell['outputs'] = [{'output_type': 'execute_result', 'data': {'text/plain': '3.0'}, 'metadata': {}, 'execution_count': 1}]
    if 'exercise' in cell['metadata']:
        cell['source'] = ''
