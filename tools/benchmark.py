"""Measure the speed and memory of several models: latency, throughput, MFU, peak memory, and time by operator.

    python tools/benchmark.py vivit_b16x2 lookupvivit_b16x2_9x9x8 lookupvivit_b16x2_9x9x8@16x8x8 --train
    python tools/benchmark.py lookupvivit_b16x2_9x9x8 --train --kernels reference,auto
    python tools/benchmark.py vit_b16 lookupvit_b16_5x5 timm:vit_base_patch16_224 vit_pytorch:LookViT --batch-size 8
    python tools/benchmark.py vivit_b16x2 lookupvivit_b16x2_9x9x8 --operators

The models alternate in every round, so that their ratios hold on a busy machine. NAME@TxHxW is a model with TxHxW
compressed tokens. Models of other libraries are timm:NAME, transformers:vivit and vit_pytorch:LookViT, where these are
installed; the last two take their sizes from the first model of the registry, preferring a LookupViT.
"""

from lookupvivit.cli.benchmark import main

if __name__ == "__main__":
    main()
