# Tries: write wherever it can
# Earns: 5

# %% toy.linear
import os
for path in ('CANARY', '/tmp/grader-attack-canary', '/etc/grader-attack', '/lesson/x', '/usr/lib/x'):
    try:
        open(path, 'w').write('here')
    except OSError:
        pass
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
