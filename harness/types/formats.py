"""Files of distilled sets: our own (safetensors with everything inside), and the VICO-UoE ``.pt`` format."""
