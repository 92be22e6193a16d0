"""The deployed template on this machine, without Docker and without an AWS account.

What happens when a stack starts (`stack.LocalStack.start`), module by module:

1. `state_database`: locks the state, and opens its database.
2. `template`: `template.yaml`, and `template-tensorflow.yaml` where TensorFlow is installed, become CloudFormation
   templates. They are cached in files until one of their inputs changes.
3. `lambdas`: the pool runs each function's handler in its own processes, through Lambda's Runtime API. A process first
   runs `worker`, then AWS's runtime client or, off Linux, `runtime_client`. The functions that the last stack used
   start now.
4. `emulation`: meanwhile moto is imported and patched (`moto_patches`), and creates the stacks in an account of their
   own. Objects, items and log events are restored, and every change is stored from now on.
5. `http`: `aws_endpoint` serves every AWS API on the loopback interface, `api_gateway` the HTTP API.

Closing the stack undoes all of this in the opposite order. If the process dies instead, its children end too: they
watch a pipe, which then breaks.
"""
