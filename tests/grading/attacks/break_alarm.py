# Tries: be ended by an alarm of its own, somewhere in the engine's code
# Earns: 5

# %% toy.linear
import signal
for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
    signal.signal({0: signal.SIGALRM, 1: signal.SIGVTALRM, 2: signal.SIGPROF}[timer], signal.SIG_DFL)
    signal.setitimer(timer, 0.0001, 0.0001)
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
