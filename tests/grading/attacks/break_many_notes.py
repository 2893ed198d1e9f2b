# Tries: fill the feedback with notes on 3,000 damaged cells
# Earns: 5

# %% file
cells.extend([{'cell_type': 'code', 'metadata': {}, 'source': 7} for _ in range(3000)])
