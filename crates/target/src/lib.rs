//! Logical units: commands, the gate, unit attentions, task management.
