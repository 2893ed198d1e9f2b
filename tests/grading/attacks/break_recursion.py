# Tries: overflow the C stack
# Earns: 2

# %% toy.linear
import sys
sys.setrecursionlimit(10**9)
def deep():
    return deep()
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return deep()
