# Tries: announce a tensor of negative size
# Earns: 2

# %% toy.linear
import json, os
def frame(header, content=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = len(header).to_bytes(4, "big") + header + content
    return len(body).to_bytes(8, "big") + body

os.write(3, frame({'body': None, 'tensors': {'0': ['float32', [-1, -4]]}}, bytes(16)))
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
