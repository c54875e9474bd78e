"""Test a model on several views of every video.

    python tools/test_net.py --cfg configs/camera_motion.yaml
    python tools/test_net.py --cfg runs/camera_motion/config.yaml         with the configuration of a finished run
    deepspeed tools/test_net.py --cfg configs/k400_9x9x8.yaml checkpoint=runs/k400_9x9x8 eval.clips=4 eval.crops=3

Without checkpoint=..., it tests the newest model in output_dir. The same command resumes an interrupted test.
"""

from lookupvivit.cli.test import main

if __name__ == "__main__":
    main()
