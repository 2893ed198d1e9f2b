# Tries: run the reference library
# Earns: 2

# %% toy.linear
import sys
sys.modules.pop('transformers', None)
import transformers
from transformers.pytorch_utils import Conv1D
Linear = Conv1D
