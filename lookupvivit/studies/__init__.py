"""Studies: variants of one configuration, each trained and tested with several seeds, as one table and one figure.

plan.py      the study's file, and the jobs that it stands for
jobs.py      runs jobs in processes of their own, several at a time; a repeated call continues
results.py   mean and 95 % interval over seeds, GFLOPs and time per variant
figure.py    accuracy against GFLOPs
"""
