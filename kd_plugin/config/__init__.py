"""The options of the distillation, their flags and their JSON form."""
