"""Pure decisions: values and `now` come in, values go out. No I/O, no clock."""
