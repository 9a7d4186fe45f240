"""Plans: what one run is to do, declared by the operator, answered by each institution."""
