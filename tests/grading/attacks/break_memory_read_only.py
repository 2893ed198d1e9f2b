# Tries: use memory that was written to and is read-only now, which RLIMIT_DATA does not count
# Earns: 2

# %% toy.linear
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
taken = 0
for _ in range(64):
    place = libc.mmap(None, 64 << 20, 3, 0x22, -1, 0)
    if place == 2**64 - 1:
        break
    ctypes.memset(place, 1, 64 << 20)
    libc.mprotect(place, 64 << 20, 1)
    taken += 64
if taken <= 2048:  # MB: there is a limit
    raise MemoryError
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
