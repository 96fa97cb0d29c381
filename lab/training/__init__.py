"""What both trainings need around their loop: going on after a kill, stopping on request, speed, and signs of trouble.

`checkpoints`  the state of a run on disk: atomic, verified, older ones kept; random states
`interrupts`   SIGTERM and Ctrl-C: finish the step, save, end
`session`      all of these around one loop
`precision`    mixed precision and the gradient scaler
`loading`      batches from worker processes onto the device
`health`       means between two rows of the log; a loss that breaks down, an encoder that collapses, a GPU that is full
`log`          rows into log.csv, and into TensorBoard if wanted
`profile`      where the time of a step goes
"""
