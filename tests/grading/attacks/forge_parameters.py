# Tries: say that there are parameters, and have none
# Earns: 2

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.sizes = in_features, out_features

    def named_parameters(self, *args, **kwargs):
        inputs, outputs = self.sizes
        yield "weight", nn.Parameter(torch.zeros(outputs, inputs))
        yield "bias", nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return torch.zeros(x.shape[:-1] + self.sizes[1:])
