# Tries: warn with something that has no text
# Earns: 2

# %% toy.linear
import warnings
class Odd(UserWarning):
    def __str__(self):
        raise ValueError
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        warnings.warn(Odd())
        return x @ self.weight.T + self.bias
