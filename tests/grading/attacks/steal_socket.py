# Tries: tell a server outside what the inputs are
# Earns: 2

# %% toy.linear
import socket
s = socket.create_connection(('127.0.0.1', PORT), 1)
s.send(b'inputs')
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
