"""Accuracy against cost of a checkpoint at many sizes (paper, Figs. 1 and 5). Modules in reading order:

plan        which (checkpoint, size) pairs are evaluated, and what each costs
evaluate    logits of all missing points and speeds on this machine
record      the JSON file of finished points
cascade     a small size for all videos, a large one for those of low confidence
report      table, CSV and the cascade of two points
figures     the points as curves of accuracy against cost; `curves` draws them

Run `python tools/cost_accuracy.py --run runs/k400_multires`.
"""
