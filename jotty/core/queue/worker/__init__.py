"""What `QueueManager` is made of: the run of a worker, its handlers and leases, and what goes on beside them.

`run` is the loop that settles, claims and waits. `handling` and `crew` run the handlers; `rescue` gives back
what a blocked loop cannot. `keeper` renews the leases from a thread of its own, where `watchdog` also warns
of a blocked event loop. `attendants` look after the rest: `cancels`, `presence` and `retention`. `unhandled`
keeps count of what this worker cannot run, and `outage` tells of a store that does not answer.
"""
