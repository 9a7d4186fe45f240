"""Models as a researcher holds them: made, fitted, measured, saved, and asked for text, in one process and without a plan file.

base.py         LanguageModel: what every model can do, from the four below
weights.py      its architecture, vocabulary, head and adapter
trained.py      fit and evaluate; asked.py makes out what they are asked for
answering.py    what it says: text, a label, an answer, a turn of a conversation
kept.py         save and load
families.py     GPT and the others, under torch's and transformers' names
settings.py     how a fit trains and what it tells, as values
planning.py     the arguments of `fit` as the plan that they amount to
fitting.py      that plan's steps, by the very loop that an institution trains with
history.py      what a fit came to, step by step
storing.py      a model as a folder, and back
bars.py         progress where somebody watches
stopping.py     Ctrl-C between two steps
"""
