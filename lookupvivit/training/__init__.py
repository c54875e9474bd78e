"""Training and testing with DeepSpeed. Modules in reading order:

tasks               what the trainer asks of a task; `classification` is the default one
trainer             the training loop: set up, train a step, evaluate, save; starts with a map of itself
data, build         from a configuration to datasets, loaders and models
losses, optimizer   the loss, parameter groups, the learning rate schedule, non-finite gradients
deepspeed_engine    precision, ZeRO, activation checkpointing and compilation, applied from outside the model
checkpointing       saving and loading checkpoints, from an engine's `whole_tensors`
checkpoint_folders, run_directory   which checkpoint a run starts from; which files belong to a run
ema                 the exponential moving average of the weights
distributed, signals   ranks, launchers; SIGTERM and SIGUSR1
logging, meter, attention_logging, failed_videos   what a run reports
multi_view_test     the multi-view test of a trained model
"""
