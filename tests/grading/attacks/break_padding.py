# Tries: swell the feedback with long solutions, and the run with long cells that nothing needs
# Earns: 2

# %% toy.linear
PLACEHOLDER = 1

# %% file
for cell in cells:
    if cell['metadata'].get('exercise') == 'toy.relu':
        cell['source'] = ''.join(cell['source']) + '\n' + 'x=1;' * 10_000 + '\n'
cells[0:0] = [{'cell_type': 'code', 'metadata': {}, 'source': f'a{i} = [' + '[1],' * 40_000 + ']'} for i in range(4)]
