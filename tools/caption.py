"""Write captions of images with a trained captioner, or score its captions on a dataset.

    python tools/caption.py holiday.jpg photos/ --run runs/coco_captions --output captions --json captions.json
    python tools/caption.py --run runs/coco_captions --score data/coco --split test

--score takes COCO's folder with Karpathy's split, a file in Karpathy's format, or a list of images and captions in
JSON, JSON lines or CSV. Exit status 1: some files could not be read, and the others were captioned; 2: an error in the
command or the data.
"""

from lookupvivit.cli.caption import main

if __name__ == "__main__":
    main()
