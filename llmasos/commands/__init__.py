"""The subcommands of `llmasos`, one module a noun. Thin: they read options, call the SDK and write results.

Nothing here imports torch; what needs it is imported inside the command, so that `llmasos plan check` works in a core install.
"""
