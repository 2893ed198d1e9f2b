# Tries: hand in a recording in which the answers are those of a wrong solution
# Earns: 2

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return torch.zeros(x.shape[:-1] + self.bias.shape)

# %% file
import json
from safetensors import safe_open
from safetensors.torch import save_file
path = folder / "reference.safetensors"
with safe_open(path, "pt") as file:
    tensors = {name: file.get_tensor(name) for name in file.keys()}
    metadata = file.metadata()
path.unlink()
save_file({name: tensor * 0 if "output" in name or tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, path, metadata)
