"""Who contributed: what a delta weighed, how far it moved the model, and where to (docs/protocol.md#contributions).

    visibility.py    who may be shown what, by the plan that institutions accepted
    figures.py       a round's rows: tokens, share, norm, cosine
    left_out.py      a round's model without one delta, and what that does to the loss on given text
    output.py        rows as table, JSON and plot; plot.py draws

No figure is kept or sent: each is computed where it is looked at, from deltas and models that the reader may read.
"""
