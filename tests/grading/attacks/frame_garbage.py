# Tries: write garbage to the grader's channel
# Earns: 2

# %% toy.linear
import os
os.write(3, b'garbage ' * 1000)
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
