# Tries: name the notebook in bytes that are no text, with an end of line, colours and another direction
# Earns: 5

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

# %% file
import os
os.rename(os.fsencode(notebook), os.fsencode(folder) + b"/a\nb\x1b[31m\xe2\x80\xae<script>[red]\xff.ipynb")
