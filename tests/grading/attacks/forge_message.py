# Tries: publish a result of 3.0 on the kernel's message channel
# Earns: 2

# %% toy.linear
from IPython import get_ipython
shell = get_ipython()
shell.kernel.session.send(shell.kernel.iopub_socket, 'execute_result', {'data': {'text/plain': '3.0'}, 'metadata': {}, 'execution_count': 1})
