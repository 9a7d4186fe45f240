"""Whatever bytes come: what reads them answers with a value or with an error of ours, and never with anything else.

targets/…       one module for each kind of bytes that others send: seeds, and an entry that reads any bytes
harness.py      what a target is, and mutations of its seeds without any tool
__main__.py     coverage-guided, by atheris (libFuzzer): `make fuzz`, or python -m tests.fuzz NAME… --seconds 60
seeds/NAME/     inputs to begin with that no code makes; found/NAME/: what once broke something, tried by every test run
"""
