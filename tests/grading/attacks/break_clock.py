# Tries: set the clock, and the machine's name
# Earns: 5

# %% toy.linear
import ctypes, socket, time
libc = ctypes.CDLL(None)
def told(change):
    try:
        change()
        return True
    except OSError:
        return False
now = time.clock_gettime(time.CLOCK_REALTIME)
assert not told(lambda: time.clock_settime(time.CLOCK_REALTIME, now))
assert not told(lambda: socket.sethostname("mine"))
assert libc.adjtimex(ctypes.create_string_buffer(b"\x01" + bytes(400))) < 0
assert libc.settimeofday(ctypes.create_string_buffer(16), None) < 0
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
