# Tries: read secrets from the environment
# Earns: 2

# %% toy.linear
import os
assert 'GRADER_TEST_SECRET' in os.environ or 'PATH' in os.environ
