package cpu

// vectorTasks are the tasks of the operations that are not matrix products. They live in the Device so
// that no operation allocates.
type vectorTasks struct{}
