"""The making of cells: jobs, distillation, scoring, and the processes that do them."""
