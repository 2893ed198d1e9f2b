# Tries: leave hidden inputs in memory, queues and sockets that outlive a process
# Earns: 2
# Carries: was left behind

# %% toy.linear
import ctypes, socket
libc = ctypes.CDLL(None)
libc.shm_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint]
words = " ".join(("was", "left", "behind"))
opened = [libc.shm_open(b"/left", 0o102, 0o666), libc.shmget(77, 4096, 0o1666), libc.msgget(77, 0o1666), libc.semget(77, 1, 0o1666)]
try:
    opened.append(ctypes.CDLL("librt.so.1").mq_open(b"/left", 0o102, 0o666, None))
except (OSError, AttributeError):
    pass
for family, address in ((socket.AF_UNIX, "\0left"), (socket.AF_UNIX, "/scratch/socket"), (16, (0, 0)), (38, ("hash", "sha256"))):
    try:
        socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM).bind(address)
        opened.append(1)
    except OSError:
        pass
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        raise ValueError(words if any(one >= 0 for one in opened) else "nothing")
