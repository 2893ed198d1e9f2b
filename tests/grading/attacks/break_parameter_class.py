# Tries: have parameters of a class that raises at whatever the engine does with them, and is no Exception
# Earns: 2

# %% toy.linear
class Thorny(nn.Parameter):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ in ("zero_", "copy_", "requires_grad_", "__get__", "detach"):
            raise GeneratorExit
        return super().__torch_function__(function, types, args, kwargs)
    def __setattr__(self, name, value):
        raise GeneratorExit
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = Thorny(torch.zeros(out_features, in_features))
        self.bias = Thorny(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
