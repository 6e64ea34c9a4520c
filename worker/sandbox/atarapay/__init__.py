"""AtaraPay's side, as its documentation has it: values in, values out, no clock and no chance."""
