"""The deployed template on this machine: no Docker, no AWS account.

What happens when a stack starts (`stack.LocalStack.start`), module by module:

1. `state`: take the lock, open the database of what outlived earlier stacks.
2. `template`: `template.yaml`, and `template-tensorflow.yaml` where TensorFlow is installed, become CloudFormation
   templates, kept in files until something they depend on changes.
3. `functions`, `process`, `runtime_api`: the pool that runs each function's handler in processes of its own, fed by
   Lambda's Runtime API. In a process `worker` comes first, then AWS's runtime client or, off Linux, `runtime_client`.
   The functions that the last stack used start now.
4. `imports`, `emulator`: meanwhile moto is imported, and creates the stacks in an account of their own.
5. `engine`: moto's Step Functions engine is put right and made to call the pool.
6. `persistence`: objects, items and log events are put back, and written through from now on.
7. `gateway`: every AWS API is served on the loopback interface; `door`: the HTTP API is. `http_server` reads the
   requests of both, as `http_messages`; `origins` refuses those of other pages, `uploads` those that are cut short, and
   `mistakes` finds what is wrong with one at which moto fails.

Everything is undone in the opposite order when the stack is closed. If the process dies instead, its children follow: a
pipe that they watch breaks.
"""
