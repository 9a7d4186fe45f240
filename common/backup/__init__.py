"""A home folder as one file, taken while its daemon runs, and back: what both daemons' `backup` and `restore` share.

archive     the file: a tar whose last member lists every other one with its SHA-256
collecting  what goes in: files, copies of databases
restoring   out again, into a home that does not exist yet
"""
