# Tries: give the source as a list with numbers in it
# Earns: 2

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
for cell in content["cells"]:
    if cell["metadata"].get("exercise") == "toy.linear":
        cell["source"] = ["".join(cell["source"]), 7, None]
notebook.write_text(json.dumps(content))
