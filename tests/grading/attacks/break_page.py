# Tries: put what a page obeys into code, names and messages: pictures, refreshes, links, formulas, templates
# Earns: 2

# %% toy.linear
class Odd(ValueError):
    pass
Odd.__name__ = "<svg/onload=alert(1)>"
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        """</pre></details><meta http-equiv=refresh content='0;url=http://example.org'>{{ 7 * 191 }}<!--"""
        raise Odd(
            "`</code><svg onload=alert(1)>` [x](javascript:alert(1)) $\\href{javascript:alert(1)}{x}$ "
            "<a href='data:text/html,x'>x</a> <base href=http://example.org> {{ 7 * 191 }} {% raw %} ]]> --> </style>"
        )
