# Tries: run a program
# Earns: 2

# %% toy.linear
import subprocess
subprocess.run(['touch', 'CANARY'], check=True)
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
