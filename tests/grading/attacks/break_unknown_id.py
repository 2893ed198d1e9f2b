# Tries: stop the run with a cell that the gradebook does not know
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
cells.append({'cell_type': 'code', 'metadata': {'nbgrader': {'grade_id': 'unknown', 'grade': True, 'solution': False, 'locked': True, 'points': 1, 'schema_version': 3}}, 'source': '1', 'outputs': [], 'execution_count': None})
