"""Who the participant is: keys, renewal and rotation, and how it leaves."""
