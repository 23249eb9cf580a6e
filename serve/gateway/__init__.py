"""The hospital gateway: takes films from the hospital's systems and sends results to them."""
