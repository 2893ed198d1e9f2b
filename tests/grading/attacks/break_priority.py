# Tries: come before everybody else, on every processor, without limits
# Earns: 5

# %% toy.linear
import os, resource
changes = [
    lambda: os.nice(-20),
    lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)),
    lambda: os.sched_setaffinity(0, range(os.cpu_count())),
    *(
        lambda limit=limit: resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_STACK)
    ),
]
changed = 0
for change in changes:
    try:
        change()
        changed += 1
    except (OSError, ValueError):
        pass
assert not changed
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return x @ self.weight.T + self.bias
