# Tries: get memory, rings and programs in the kernel that no older limit counts
# Earns: 5

# %% toy.linear
import ctypes, platform
libc = ctypes.CDLL(None)
old = {"x86_64": (298, 321, 323), "aarch64": (241, 280, 282)}.get(platform.machine(), ())
area = ctypes.create_string_buffer(4096)
opened = [n for n in (*old, 425, 428, 430, 434, 444, 447) if libc.syscall(n, 8, area, 0, 0, 0, 0) >= 0]
opened += [name for name in ("memfd_create", "mlockall", "inotify_init1", "timerfd_create") if getattr(libc, name)(1, 0) >= 0]
assert not opened, opened
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
