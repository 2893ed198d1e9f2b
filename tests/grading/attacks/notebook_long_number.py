# Tries: stop the run with a number of 100,000 digits
# Earns: 0

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
import json
content = json.loads(notebook.read_text())
content["metadata"]["long"] = "@"
notebook.write_text(json.dumps(content).replace('"@"', "7" * 100_000))
