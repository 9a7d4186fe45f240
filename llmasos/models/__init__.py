"""Models: from a plan's architecture to weights, to a file in the wire's layout, to a folder that others can load.

classes.py        model type + head → a class of transformers, and no other
architecture.py   a plan's model section → a transformers configuration, by allow-list
build.py          configuration + seed → module
adapters.py       LoRA beside frozen weights, by peft
manifest.py       module → ordered tensor manifest
initial.py        the initial weights, the same bits on every machine
pretrained.py     a folder's weights → the module that `plan prepare` writes
tensors.py        module ↔ model file, base + module → delta file; streamed
export.py         module → Hugging Face folder
"""
