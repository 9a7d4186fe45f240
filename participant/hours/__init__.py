"""When the worker may work: windows, pauses, load, budgets; and what is said while it may not."""
