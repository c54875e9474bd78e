"""Test a model with many views per video.

    python tools/test_net.py --cfg configs/camera_motion.yaml
    deepspeed tools/test_net.py --cfg configs/k400_9x9x8.yaml checkpoint=runs/k400_9x9x8 eval.clips=4 eval.crops=3

Without checkpoint=..., the newest model of the configuration's own run directory is tested. Run it again after a kill
and it goes on with the videos it has finished.
"""

from lookupvivit.cli.arguments import run_with_config


def main() -> None:
    from lookupvivit.training.multi_view_test import test

    run_with_config(test, __doc__.splitlines()[0])


if __name__ == "__main__":
    main()
