# Tries: carry hidden values home in the names of parameters
# Earns: 2

# %% toy.linear
told = []
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def load_state_dict(self, *args, **kwargs):
        raise ValueError

    def named_parameters(self, *args, **kwargs):
        import sys
        frame = sys._getframe()
        while frame is not None and not told:
            case = frame.f_locals.get("case")
            if hasattr(case, "args"):
                told.append(str(case.args[0].flatten().tolist()[:4]))
            frame = frame.f_back
        yield "_".join(told) or "none", nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x
