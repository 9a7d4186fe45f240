"""`llmasos-participant doctor`: what could keep this participant from working, looked at one by one.

doctor     which checks there are, and their order
finding    what a check says
home       permissions, keys, certificate, policy, data sets
disk       room for open runs, and how long a durable write takes
network    the way to the coordinator, what it says of us, and its clock
worker     the daemon, and the worker with its device and its isolation
"""

from participant.doctor.doctor import Doctor as Doctor
from participant.doctor.finding import Finding as Finding
