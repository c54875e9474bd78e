"""Sum up a finished run: accuracy per view count, cost, and where its pictures are.

python tools/summarize.py runs/camera_motion
"""

import argparse
import json
import os
import sys
from pathlib import Path

from lookupvivit.profiling.flops import count_cost
from lookupvivit.weights.files import WeightsError, load_classifier, read_description


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory, such as runs/camera_motion")
    run = parser.parse_args().run
    try:
        model, description = load_classifier(run), read_description(run)
    except WeightsError as error:
        sys.exit(f"error: {error}")
    size = description["overrides"]["input_size"]
    cost = count_cost(model, (1, 3, *size))
    print(f"\n{description['name']} on {size[0]} frames of {size[1]} x {size[2]}, {description['num_classes']} classes")
    print(f"  {cost.macs / 1e9:.3f} GFLOPs per view (multiply-adds), {cost.parameters / 1e6:.2f} M parameters")
    log = run / "log.jsonl"  # absent beside weights that came alone
    records = map(json.loads, log.read_text(encoding="utf-8").splitlines()) if log.is_file() else ()
    validation = [record for record in records if record["kind"] == "val"]
    if validation:
        last = validation[-1]
        print(f"  validation after step {last['step']}, 1x1 view (central clip and crop):")
        print(f"      1x1 views   top-1 {last['top1']:6.2f} %   top-5 {last['top5']:6.2f} %")
    for file in sorted((run / "predictions").glob("*.json")):
        summary = json.loads(file.read_text(encoding="utf-8"))
        print(f"  {summary['videos']} validation videos, {file.stem} views:")
        for views, score in summary["views"].items():
            print(f"    {views:>5} views   top-1 {score['top1']:6.2f} %   top-5 {score['top5']:6.2f} %")
        print(f"    confusions  {file.with_name(file.stem + '_confusion.png')}")
    pictures = sorted((run / "attention").glob("*.png"))
    if pictures:
        print(f"  attention maps over time: {len(pictures)} pictures, the newest {pictures[-1]}")
    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    print(f"  TensorBoard: {run / 'tensorboard'}; open it with\n    {tensorboard} --logdir {run / 'tensorboard'}")


if __name__ == "__main__":
    main()
