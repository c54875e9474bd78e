"""`make gpu-report`: everything that only a GPU can answer, in sections that are interrupted and continued at will.

    sections        what there is, by priority; `runner` starts each one in a process of its own (`worker`)
    correctness     kernels against float64
    tuning          the fastest tiles of each Triton kernel
    alternatives    the fastest implementation of each direction; TFLOP/s, share of the roofline
    models          LookupViT against ViT: eager, compiled, CUDA graphs; forward and training; memory
    memory          the dry run's estimate against the measured peak
    engine          DeepSpeed ZeRO 0 to 3 in bf16 against float32
    tables          results as Markdown

    exchange        shapes, inputs and the float64 solution
    measurement     times on a device, and its peaks
    table           what is measured here and read by `lookupvivit.kernels.tuned`
    resources       registers, shared memory and spills of the kernels, which needs no GPU

Needs torch, triton and timm (and einops, which the models import); DeepSpeed only for its section.
"""
