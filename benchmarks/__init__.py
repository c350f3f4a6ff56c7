"""How fast the course is on this machine: `python -m benchmarks`; nothing imports it but `tools`.

`report` loads without TensorFlow. Each module that measures runs in a process of its own, because
oneDNN reads `ONEDNN_MAX_CPU_ISA` only while it is loaded.
"""
