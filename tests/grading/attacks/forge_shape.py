# Tries: return a tensor whose class lies about shape, size and values
# Earns: 2

# %% toy.linear
class Lying(torch.Tensor):
    shape = property(lambda self: torch.Size([6, 5]))
    nbytes = property(lambda self: 0)
    def size(self, *args):
        return torch.Size([6, 5])
    def numel(self):
        return 30
    def detach(self):
        return self
    cpu = contiguous = clone = reshape = view = lambda self, *args, **kwargs: self
    def numpy(self):
        class Bytes:
            def tobytes(self):
                return bytes(120)
        return Bytes()
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return torch.zeros(1).as_subclass(Lying)
