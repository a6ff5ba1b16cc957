"""Several processes, on one host or more, that work on the same run.

``rollcall.join`` is the door: it connects this process to the others. Inside it,
``place`` finds this process's number, ``meeting`` makes sure that all processes are
there and run the same program, and ``log_filter`` shortens JAX's log of a lost
process where that is asked for.

Programs then use ``processes`` (shares, and values known to all) and ``interrupt``
(SIGTERM and Ctrl-C stop the work where everything is saved). Both also work in a lone
process that never joined.
"""
