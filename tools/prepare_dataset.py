"""Scan a dataset: which videos can be decoded, and their properties. Optionally write copies or shards for training.

python tools/prepare_dataset.py --cfg configs/k400_9x9x8.yaml data.root=/data/k400 --output /data/prepared [--copies]
python tools/prepare_dataset.py --cfg configs/imagenet_5x5.yaml --output /data/imagenet_shards --shards

Writes to the output folder: SPLIT_videos.csv (one row per video), skip.txt (videos that cannot be decoded or do not
exist, for data.skip_list), and with --copies or --shards the data and its class names. It replaces no file that it has
not created.
"""

from lookupvivit.cli.prepare import main

if __name__ == "__main__":
    main()
