"""What `tools/doctor.py` looks at: whether this machine can train, read videos and talk to itself."""
