"""How a function of one candidate runs over a population: chunks, forms, devices."""
