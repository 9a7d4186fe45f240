"""What people and machines see of a coordinator at work, and what institutions report."""
