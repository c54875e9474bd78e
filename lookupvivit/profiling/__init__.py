"""Cost of models: multiply-adds, parameters, memory and speed.

Cost of a model, counted
    flops               multiply-adds and parameters, counted with fvcore
    paper_costs         the paper's Eq. 5 and 6, and its tables' costs next to those counted here
    budget              `for_budget`: the largest compressed size within GFLOPs or milliseconds

Memory of a training step
    memory_estimate     calculated before training: activations, weights and DeepSpeed's buffers
    activation_trace    its part for forward and backward passes, traced on tensors without data
    memory_measurement  measured: the peak of a process, and the bytes that autograd saves

Speed on this machine
    timing              times of calls in alternation, and their spread
    device_flops        a device's peak FLOP/s, the reference of MFU
    process_usage       time, CPU time and memory of a process and its children
    generated_videos    videos to measure with
    operator_times      time and multiply-adds of a forward pass by operator

Benchmark of several models (tools/benchmark.py)
    benchmark_cases     what is measured: names -> models that are ready to run
    external_models     models of other libraries
    benchmark           the measurement
    benchmark_table     its results as text

`gpu_report` (tools/gpu_report.py) asks a GPU everything at once: kernels, models, memory, DeepSpeed.

`dtypes` names floating-point types. GFLOPs are multiply-adds everywhere, except in `paper_costs`, which keeps the unit
of each table. Peaks of devices, and therefore MFU, count a multiply-add as two FLOPs.
"""
