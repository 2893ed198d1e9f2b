# Tries: raise what is no Exception in the backward pass
# Earns: 2

# %% toy.linear
class Odd(BaseException):
    def __str__(self):
        raise Odd
def raise_it(gradient):
    raise Odd
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        output = x @ self.weight.T + self.bias
        if output.requires_grad:
            output.register_hook(raise_it)
        return output
