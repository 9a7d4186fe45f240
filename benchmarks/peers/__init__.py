"""The same round on LLMasOS, Flower and NVFLARE, side by side.

    python -m benchmarks.peers --mb 100 --participants 4 --rounds 3

Every participant takes a model and sends back as many bytes, which the server averages; nobody trains. The peers run as
their documentation says that they are run in earnest: real processes, TLS, their own public interfaces (`apps/`), each in a
virtual environment of its own that is made here.
"""
