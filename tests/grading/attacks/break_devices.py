# Tries: change the times of the host's devices, and lock and lease its files
# Earns: 5

# %% toy.linear
import fcntl, os
for path in "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", torch.__file__, os.path.dirname(torch.__file__) + "/../transformers":
    for attempt in (
        lambda: os.utime(path), lambda: os.chmod(path, 0o777), lambda: fcntl.flock(open(path), fcntl.LOCK_EX),
        lambda: fcntl.fcntl(open(path), fcntl.F_SETLEASE, fcntl.F_RDLCK),
    ):
        try:
            attempt()
            open("CANARY", "w").close()
        except OSError:
            pass
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
