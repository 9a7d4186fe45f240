"""Local training: what one institution does between a base model and its delta.

corpus     folders of text → training and held-out tokens on disk
schedule   learning rate, a pure function of the global step
loop       local steps of a round, each a pure function of (weights, moments, seed, step)
scaffold   SCAFFOLD's control variates: what steps are corrected by, and what is sent of them
snapshot   training state on disk, from which a worker goes on with the same bits
tracking   rows of numbers to TensorBoard, MLflow, W&B or a function, of trainings on this machine
baseline   the same training without a federation: alone, or on pooled data
"""
