# Tries: stop the compiler with null bytes, form feeds and separators in the source
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
        cell["source"] = "".join(cell["source"]).replace("return", "\x0c\u2028\x00return")
notebook.write_text(json.dumps(content))
