"""seQura: order updates as a state, told whole each time."""
