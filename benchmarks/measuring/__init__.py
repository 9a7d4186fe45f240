"""What the benchmarks of the data plane share: federations to measure, the machine's own limits, tables and plots."""
