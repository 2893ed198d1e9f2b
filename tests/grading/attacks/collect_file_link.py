# Tries: hand in a link to the lecturer's solved notebook
# Earns: 0

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T

# %% exchange
folder = inbound / f"{me}+{lesson}+{now}+AAAA"
folder.mkdir(mode=0o755)
(folder / "toy.ipynb").symlink_to(course / "solutions" / lesson / "toy.ipynb")
