# Tries: swell the notebook with outputs, attachments, widgets and a pickle in its metadata
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
import base64, json, os, pickle
class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {root}/canaries/notebook_outputs",)
content = json.loads(notebook.read_text())
content["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"x": "w" * 1_500_000}}}}
content["metadata"]["pickled"] = base64.b64encode(pickle.dumps([Bomb(), "p" * 1_000_000])).decode()
for cell in content["cells"]:
    cell["attachments"] = {"image.png": {"image/png": "a" * 100_000}}
    if cell["cell_type"] == "code":
        text = {"text/html": "<script>alert(1)</script>" * 20_000}
        cell["outputs"] = [{"output_type": "display_data", "data": text, "metadata": {}}]
notebook.write_text(json.dumps(content))
