"""Lambda's part: a pool of processes that run the handlers, and the Runtime API that feeds them."""
