# Tries: stop the run with metadata of the wrong types
# Earns: 5

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias

# %% toy.relu
def relu(x):
    return x.clamp(min=0)

# %% file
for cell in cells:
    if 'check' in cell['metadata']:
        cell['metadata']['nbgrader'] = ['odd', None, {}]
cells.append({'cell_type': 'code', 'metadata': {'nbgrader': {'grade_id': {'a': 1}, 'grade': 'yes', 'points': 'many'}}, 'source': 7})
cells.append(None)
