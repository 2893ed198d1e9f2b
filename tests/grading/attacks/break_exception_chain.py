# Tries: raise an error that was caused by itself, with 10,000 notes
# Earns: 2

# %% toy.linear
class Own(ValueError):
    @property
    def args(self):
        return self
    def __getitem__(self, i):
        return self
    def __str__(self):
        return self
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        error, cause = Own(), KeyError()
        error.__cause__, cause.__context__ = cause, error
        error.__notes__ = ["note"] * 10_000
        raise error
