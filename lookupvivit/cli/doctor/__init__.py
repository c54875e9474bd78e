"""The checks of `tools/doctor.py`: can this machine train, read videos, and start several communicating ranks?"""
