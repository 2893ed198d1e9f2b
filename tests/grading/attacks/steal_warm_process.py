# Tries: use what the warm process holds, by the frames that the fork has inherited
# Earns: 5

# %% toy.linear
import sys
frame, taken = sys._getframe(), []
while frame is not None:
    for name in ("control", "zygote", "settings"):
        found = frame.f_locals.get(name)
        try:
            if name == "control" and found is not None:
                taken.append(found.send(b'{"do": "fork"}'))
            if name == "zygote" and found is not None and found.proc >= 0:
                import os
                taken.append(os.listdir(found.proc))
        except OSError:
            pass
    frame = frame.f_back
assert not taken
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
