"""A whole consortium on one machine, from the very commands and files of a real deployment.

    app.py            simulate() and demo(): the order of things, from folders of text to a report
    layout.py         what lies where in the output folder
    stdlib_corpus.py  the demo's text: the sources that ship with every CPython build
    processes.py      children that die with this process, however it dies
    deployment.py     the commands of an operator and of institutions, run as processes
    watch.py          `run watch --format json`, parsed into types
    monitor.py        follows a run to its end and notices daemons that died
    baselines.py      the same training without a federation: each alone, and all text pooled
    counting.py       an n-gram model of all text, to compare with
    results.py        what was measured, in one value
    table.py, report_html.py, report_json.py, svg.py, readme.py      how it is told

Never imports coordinator or participant: it starts them, as an operator and institutions would.
"""
