# Tries: read and borrow from other processes by the newer calls
# Earns: 5

# %% toy.linear
import ctypes, os
libc = ctypes.CDLL(None)
libc.process_vm_readv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
area = ctypes.create_string_buffer(4096)
vector = (ctypes.c_ulong * 2)(ctypes.addressof(area), 4096)
others = [os.getppid(), *range(2, 300)]
assert all(libc.process_vm_readv(pid, vector, 1, vector, 1, 0) < 0 for pid in others)
assert all(libc.syscall(434, pid, 0) < 0 for pid in others)  # pidfd_open
assert all(libc.syscall(438, fd, 3, 0) < 0 for fd in range(64))  # pidfd_getfd
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
