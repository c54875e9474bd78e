"""Evaluate accuracy against GFLOPs and speed: one checkpoint at many compressed sizes, compared with others.

    python tools/cost_accuracy.py --run runs/k400_multires eval.clips=1 eval.crops=1
    python tools/cost_accuracy.py --run runs/k400_multires --sizes 8x5x5,8x7x7,8x9x9 \\
        --individual runs/k400_9x9x8 --everywhere
    python tools/cost_accuracy.py --run runs/imagenet_multires --image-sizes 224,288,384 \\
        --individual runs/imagenet_vit

The validation set, the preprocessing and the views are those of config.yaml in the run directory. A repeated command
reuses finished points.
"""

from lookupvivit.cli.cost_accuracy import main

if __name__ == "__main__":
    main()
