"""Train a model.

    deepspeed tools/train_net.py --cfg configs/k400_9x9x8.yaml
    torchrun --nproc_per_node 8 tools/train_net.py --cfg configs/k400_9x9x8.yaml optim.micro_batch_size=4
    python tools/train_net.py --cfg configs/camera_motion.yaml optim.max_steps=100
    python tools/train_net.py --cfg configs/k400_9x9x8.yaml --dry-run --world 8     print data, steps, cost and memory

The same command resumes an interrupted run from its last checkpoint.
"""

from lookupvivit.cli.train import main

if __name__ == "__main__":
    main()
