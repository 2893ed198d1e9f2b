# Tries: leave hidden inputs in the kernel's keyring
# Earns: 2
# Carries: was left behind

# %% toy.linear
import ctypes, platform
libc = ctypes.CDLL(None)
add, keyctl = (248, 250) if platform.machine() == "x86_64" else (217, 219)
words = " ".join(("was", "left", "behind"))
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        added = [libc.syscall(add, b"user", b"left", b"1", 1, ring) for ring in (-2, -3, -4, -5)]
        raise ValueError(words if max(added) >= 0 or libc.syscall(keyctl, 0, -4, 0) >= 0 else "nothing")
