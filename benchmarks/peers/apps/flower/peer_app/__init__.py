"""A Flower App that carries parameters and averages them; `workload.py` is put beside this file."""
