# Tries: run programs and other notebooks by lines that only IPython understands
# Earns: 5

# %% toy.linear
!touch CANARY
%system touch CANARY
%run /lesson/../ROOT/solutions/00-toy/toy.ipynb
%load_ext autoreload
%autoreload 2
%env GRADER=1
%cd ROOT
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
