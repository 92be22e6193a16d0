"""The deployed template on this machine: no Docker, no AWS account.

What happens when a stack starts (`stack.LocalStack.start`), module by module:

1. `state_database`: takes the lock, and opens the database of what outlived earlier stacks.
2. `template`: `template.yaml`, and `template-tensorflow.yaml` where TensorFlow is installed, become CloudFormation
   templates, cached in files until something they depend on changes.
3. `lambdas`: the pool runs each function's handler in its own processes, through Lambda's Runtime API. In a process
   `worker` runs first, then AWS's runtime client or, off Linux, `runtime_client`. The functions that the last stack
   used start now.
4. `emulation`: meanwhile moto is imported, creates the stacks in an account of their own, is corrected, and invokes
   functions through the pool. Objects, items and log events are restored, and persisted from now on.
5. `http`: `aws_endpoint` serves every AWS API on the loopback interface, `api_gateway` the HTTP API.

Everything is undone in the opposite order when the stack is closed. If the process dies instead, its children end too:
a pipe that they watch breaks.
"""
