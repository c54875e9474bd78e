"""Measure how much the compressed tokens attend to moving objects, by default those of the shipped model.

    python tools/object_attention.py --output runs/object_attention
    python tools/object_attention.py --masks my_videos/masks.csv --output runs/my_objects

The first command renders its clips. Masks are a CSV file with the columns path and mask; the mask may be empty for a
still camera. Both write object_attention.json, object_attention.md and object_attention.png.
"""

from lookupvivit.cli.object_attention import main

if __name__ == "__main__":
    main()
