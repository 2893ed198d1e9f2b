# Tries: overflow the stack with a graph of 20,000 steps, when it is run backwards or let go
# Earns: 5

# %% toy.linear
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        output = x @ self.weight.T + self.bias
        if output.requires_grad:
            for _ in range(20_000):
                output = output.view_as(output)
        return output
