# Tries: use the submission's time twice, by sleeping in every cell a little less than an exercise may take
# Earns: 0

# %% toy.linear
import time; time.sleep(3.5)
class Linear(nn.Module):
    pass

# %% toy.relu
import time
def relu(x):
    time.sleep(9)
