"""Fit linear, k-NN, few-shot and attentive probes to stored features of a dataset, and print one table.

python tools/features.py --cfg configs/ucf101.yaml --split train --run runs/k400_9x9x8 --output features/train
python tools/features.py --cfg configs/ucf101.yaml --split val --run runs/k400_9x9x8 --output features/val
python tools/probe.py features/train --test features/val
"""

from lookupvivit.cli.probe import main

if __name__ == "__main__":
    main()
